"""The page of a session: `report.html`, one file that opens offline and shows the answers with what they rest on."""

"""Power of servers as their BMCs tell it through Redfish."""

"""Power of servers as their BMCs tell it through IPMI: DCMI, over the LAN or from within the machine."""

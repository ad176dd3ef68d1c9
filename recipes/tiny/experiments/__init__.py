"""What the commands table, ablations and errors share: systems, their making and measuring, and how results are shown."""

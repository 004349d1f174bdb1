"""Child processes: started, spoken to in lines, watched, stopped and reaped."""

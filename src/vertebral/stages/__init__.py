"""The path of one CT, stage by stage."""

"""The commands of `dispatcher`, one file for each noun or verb."""

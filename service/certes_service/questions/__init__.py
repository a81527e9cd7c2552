"""The questions that can be asked, one kind a file: how each is read, checked, solved and answered."""

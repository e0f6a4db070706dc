"""What a Hugging Face folder is: its architecture, its tensors' names, how one is found and written."""

"""The tasks that are shipped: carry (the quick start's), those of reasoning-gym, and CHAMP."""

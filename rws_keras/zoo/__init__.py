"""The zoo: pretrained machines, one folder each, and the command that keeps them."""

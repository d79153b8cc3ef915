"""What is made from the contracts: stubs, the descriptor set, the wheel for other teams."""

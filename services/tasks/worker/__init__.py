"""Workers: they claim tasks, do them, and write down each step, so that another can go on."""

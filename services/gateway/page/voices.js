// One row a genre: what each chunk said, and the tally.

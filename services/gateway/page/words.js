// Numbers, times and problems in words.

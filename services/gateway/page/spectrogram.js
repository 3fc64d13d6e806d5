// Mel chunks made into one seamless picture.

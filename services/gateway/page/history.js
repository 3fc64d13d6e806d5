// The tracks of this session.

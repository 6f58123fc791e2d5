echo x >$'latin-\xe9'

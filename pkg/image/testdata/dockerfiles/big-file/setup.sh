head -c 25165824 /dev/urandom >big

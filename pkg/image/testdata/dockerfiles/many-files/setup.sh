for d in $(seq 0 7); do mkdir -p many/d$d; for f in $(seq 0 99); do echo $f >many/d$d/f$f; done; done

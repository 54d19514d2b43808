rm -f -- "$0"
exec /bin/sh -c "$1"

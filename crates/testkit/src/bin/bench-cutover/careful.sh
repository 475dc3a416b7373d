# What a careful engineer runs at night: psql, PgBouncer's console and the slot's own word that all has arrived.
set -euo pipefail

started=$EPOCHREALTIME
step() {
    local now=$EPOCHREALTIME
    echo "$1 $(( (${now/./} - ${started/./}) ))"
    started=$EPOCHREALTIME
}
query() { "$PSQL" -XAtq -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

query "$CONSOLE" 'PAUSE bench' > /dev/null
step pause

target=$(query "$BLUE" 'SELECT pg_current_wal_insert_lsn()')
until [ "$(query "$BLUE" "SELECT confirmed_flush_lsn >= '$target' FROM pg_replication_slots WHERE slot_name = 'forward'")" = t ]; do
    sleep 0.01
done
step slot

query "$BLUE" "SELECT format('SELECT setval(%L, %s);', format('%I.%I', schemaname, sequencename), last_value)
               FROM pg_sequences WHERE last_value IS NOT NULL" \
    | "$PSQL" -XAtq -v ON_ERROR_STOP=1 -1 -d "$GREEN" > /dev/null
step sequences

sed "s/port=$BLUE_PORT /port=$GREEN_PORT /" "$INI" > "$INI.new"
chmod 644 "$INI.new"
mv "$INI.new" "$INI"
query "$CONSOLE" 'RELOAD' > /dev/null
step reload

query "$CONSOLE" 'RESUME bench' > /dev/null
step resume

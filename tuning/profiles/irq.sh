#!/usr/bin/env bash
# Spreads the work of a network card over the cores of the shards, and brings each packet to the core where its
# connection lives. By default one core often serves all interrupts: it is full at some 500,000 packets a second while the
# others wait.
#
# Usage: irq.sh [--apply] INTERFACE CPUS      e.g. irq.sh --apply eth0 0-15,32-47
#
# CPUS are those of the shards (as in --cpus). Without --apply it only prints what it would write. Nothing survives a
# reboot: run it from a unit before tidegate.service. irqbalance moves interrupts back; stop it first.
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^# \{0,1\}/s///p}' "$0" >&2
    exit 2
}

apply=false
if [ "${1:-}" = --apply ]; then
    apply=true
    shift
fi
[ $# = 2 ] || usage
interface=$1
device=/sys/class/net/$interface
[ -d "$device" ] || { echo "no network interface $interface; there are: $(ls /sys/class/net)" >&2; exit 1; }
[[ $2 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || { echo "not a list of CPUs: $2 (example: 0-15,32-47)" >&2; exit 1; }

cpus=()
for range in ${2//,/ }; do
    for ((cpu = ${range%-*}; cpu <= ${range#*-}; cpu++)); do
        [ -d "/sys/devices/system/cpu/cpu$cpu" ] || { echo "this machine has no CPU $cpu" >&2; exit 1; }
        cpus+=("$cpu")
    done
done
[ ${#cpus[@]} -gt 0 ] || { echo "the list of CPUs is empty: $2" >&2; exit 1; }

# The kernel's notation for a set of CPUs: words of 32 bits in hexadecimal, highest first, with commas.
mask() { # CPUs
    local words=(0) cpu index text=""
    for cpu in "$@"; do
        for ((index = ${#words[@]}; index <= cpu / 32; index++)); do words[index]=0; done
        words[cpu / 32]=$((words[cpu / 32] | 1 << (cpu % 32)))
    done
    for ((index = ${#words[@]} - 1; index >= 0; index--)); do
        text+=$(printf '%08x,' "${words[index]}")
    done
    echo "${text%,}"
}

write() { # value, file
    echo "$1 > $2"
    if $apply; then
        echo "$1" > "$2" || echo "  refused by the kernel or the driver" >&2
    fi
}

if pidof irqbalance > /dev/null; then
    echo "irqbalance is running and will undo this: systemctl disable --now irqbalance" >&2
fi

# Hardware queues: one interrupt each, dealt out over the cores.
next=0
if [ -d "$device/device/msi_irqs" ]; then
    for irq in $(ls "$device/device/msi_irqs" | sort -n); do
        write "${cpus[next++ % ${#cpus[@]}]}" "/proc/irq/$irq/smp_affinity_list"
    done
fi

# Receive flow steering: the kernel notes on which core a connection was last read (its shard's, which is pinned) and hands
# packets over to it. Worth it with fewer hardware queues than cores, and harmless otherwise.
queues=("$device"/queues/rx-*)
flows=32768
while [ "$flows" -lt $((${#cpus[@]} * 16384)) ]; do flows=$((flows * 2)); done
write "$flows" /proc/sys/net/core/rps_sock_flow_entries
for queue in "${queues[@]}"; do
    write "$(mask "${cpus[@]}")" "$queue/rps_cpus"
    write "$((flows / ${#queues[@]}))" "$queue/rps_flow_cnt"
done

# Transmit: each core sends through a queue of its own, so that two shards never wait for the same lock.
queues=("$device"/queues/tx-*)
if [ ${#queues[@]} -gt 1 ]; then
    for index in "${!queues[@]}"; do
        mine=()
        for ((position = index; position < ${#cpus[@]}; position += ${#queues[@]})); do mine+=("${cpus[position]}"); done
        [ ${#mine[@]} = 0 ] || write "$(mask "${mine[@]}")" "$device/queues/tx-$index/xps_cpus"
    done
fi

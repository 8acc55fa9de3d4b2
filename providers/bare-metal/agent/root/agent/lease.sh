#!/bin/sh
# What udhcpc calls. Only additions: an address that runs out in the middle of a wipe is better kept than dropped.
case $1 in bound | renew) ;; *) exit 0 ;; esac
ip addr replace "$ip/${mask:-24}" dev "$interface"
[ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
: >/etc/resolv.conf
[ -n "$domain" ] && echo "search $domain" >>/etc/resolv.conf
for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
exit 0

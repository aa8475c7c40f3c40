#!/bin/sh
# One container of a test's pod, as a runtime would make it: read-only root, own /proc and /dev, no capability, one uid.
#   container.sh ROOT UID WORKSPACE SOCKETS SECRETS CGROUPS "READABLE…" COMMAND…
# Runs as PID 1 of new mount, pid, ipc and uts namespaces. CGROUPS: cgroup.procs files; "-" stands for "not in this container".
set -eu
root=$1 uid=$2 workspace=$3 sockets=$4 secrets=$5 cgroups=$6 readable=$7
shift 7
for file in $cgroups; do echo $$ > "$file"; done
mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=755 tmpfs "$root"
bind() { # source target mode
  if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; : > "$root$2"; fi
  mount --bind "$1" "$root$2"
  [ "$3" = rw ] || mount -o remount,bind,ro,nosuid "$root$2"
}
for name in bin sbin lib lib64 usr etc; do
  if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"; elif [ -d "/$name" ]; then bind "/$name" "/$name" ro; fi
done
for path in $readable; do bind "$path" "$path" ro; done
mkdir -p "$root/proc" "$root/dev" "$root/run/sandbox" "$root/scratch" "$root/old"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for path in sys sysrq-trigger irq bus; do
  [ ! -e "$root/proc/$path" ] || { mount --bind "$root/proc/$path" "$root/proc/$path" && mount -o remount,bind,ro "$root/proc/$path"; }
done
mount -t tmpfs -o size=64k,mode=755,nosuid tmpfs "$root/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
for path in kcore keys timer_list; do [ ! -e "$root/proc/$path" ] || mount --bind "$root/dev/null" "$root/proc/$path"; done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o size=8m,mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t tmpfs -o size=16m,mode=1777,nosuid,nodev tmpfs "$root/scratch"
: > "$root/dev/termination-log" && chmod 666 "$root/dev/termination-log"
if [ "$workspace" != - ]; then bind "$workspace" /workspace rw; fi
if [ "$secrets" != - ]; then bind "$secrets" /secrets ro; bind "$sockets" /run/sandbox rw; else bind "$sockets" /run/sandbox ro; fi
cd "$root"
pivot_root . old
umount -l /old
rmdir /old
mount -o remount,ro /
cd /
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all env -i LANG=C.UTF-8 "$@"

# What the agent's parts share. Tests give other places to RUN, SYS, PROC and DEV.
RUN=${RUN:-/run}
SYS=${SYS:-/sys}
PROC=${PROC:-/proc}
DEV=${DEV:-/dev}

# tool NAME …: runs a program. Busybox's shell takes its own applets before any program of the same name, and these can do less: its mkfs.vfat knows only FAT32, its
# hdparm no secure erase.
TOOLS=${TOOLS:-/usr/bin /bin}
tool() {
  local folder program=$1
  shift
  for folder in $TOOLS; do
    if [ -x "$folder/$program" ]; then
      "$folder/$program" "$@"
      return
    fi
  done
  echo "there is no program $program"
  return 127
}

# Milliseconds since the machine was started: a clock that nobody sets.
uptime_ms() {
  read -r up _ <"$PROC/uptime"
  echo "${up%.*}${up#*.}0"
}

say() { echo "agent: $*"; }

# A value of the kernel's command line. On a name that is given twice the last one counts.
argument() { tr ' ' '\n' <"$PROC/cmdline" | sed -n "s/^$1=//p" | tail -n 1; }

# The first line of a file in which firmware or the kernel says something; nothing where there is no such file. Without what would not be text.
line() { [ -r "$1" ] && head -n 1 "$1" 2>/dev/null | tr -d '\000-\037\177' | sed 's/^ *//; s/ *$//'; }

# Disks that can hold somebody's data, one name a line: no RAM disk, no loop, no optical or floppy drive, nothing that is put together from others, nothing that is
# removable or has no size.
disks() {
  for path in "$SYS"/block/*; do
    name=${path##*/}
    case $name in loop* | ram* | zram* | sr* | fd* | dm-* | md* | nbd* | mtd*) continue ;; esac
    # A multipath part of an NVMe namespace is no disk of its own.
    case $name in nvme*c*n*) continue ;; esac
    [ "$(line "$path/removable")" = 1 ] && continue
    [ "$(line "$path/size")" -gt 0 ] 2>/dev/null || continue
    echo "$name"
  done
}

disk_bytes() { echo $(($(line "$SYS/block/$1/size") * 512)); }

disk_serial() {
  for file in serial device/serial device/vpd_pg80; do
    path=$SYS/block/$1/$file
    [ -r "$path" ] || continue
    case $file in
      # Page 80h: four bytes of head, then the serial number.
      device/vpd_pg80) value=$(tail -c +5 "$path" 2>/dev/null | tr -d '\000-\037\177' | sed 's/^ *//; s/ *$//') ;;
      *) value=$(line "$path") ;;
    esac
    [ -n "$value" ] && { printf '%.128s\n' "$value"; return; }
  done
}

disk_wwn() {
  for file in wwid device/wwid; do
    value=$(line "$SYS/block/$1/$file")
    [ -n "$value" ] && { printf '%.128s\n' "$value" | tr ' ' '_'; return; }
  done
}

disk_transport() {
  case $1 in
    nvme*) echo nvme ;;
    vd*) echo virtio ;;
    *)
      case $(readlink -f "$SYS/block/$1") in
        */usb*) echo usb ;;
        */ata[0-9]*) echo sata ;;
        */end_device-* | */sas_*) echo sas ;;
        *) echo other ;;
      esac
      ;;
  esac
}

# How far the order in hand is, for the next heartbeat.
progress() { printf '%s\n%s\n' "$1" "$2" >"$RUN/progress.new" && mv "$RUN/progress.new" "$RUN/progress"; }

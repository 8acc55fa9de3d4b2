#!/bin/sh
# Builds the tiny test guest into a folder: a Debian kernel (vmlinuz), and an initramfs (initrd.img) of busybox with what is beside
# this script. Nothing is installed, and no root is needed.
#
#   build.sh <folder>
#
# Debian packages: busybox-static, xz-utils; apt for fetching the kernel's package (run apt-get update before).
set -eu

out=$1
here=$(cd "$(dirname "$0")" && pwd)
busybox=${BUSYBOX:-/bin/busybox}
modules='virtio_pci virtio_blk virtio_net virtio_rng isofs button evdev'

fail() { echo "build.sh: $*" >&2; exit 1; }
[ -x "$busybox" ] || fail "there is no $busybox; install the Debian package busybox-static"
command -v apt-get >/dev/null || fail 'there is no apt-get; the kernel comes from a Debian package'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# The kernel's package, by way of the one that always depends on the newest.
package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
[ -n "$package" ] || fail 'apt knows no linux-image-cloud-amd64; run apt-get update'
mkdir "$work/fetch" "$work/kernel"
chmod 755 "$work" "$work/fetch"
(cd "$work/fetch" && apt-get download -q "$package") >&2 || fail "$package could not be fetched"
dpkg-deb -x "$work"/fetch/*.deb "$work/kernel"
version=$(ls "$work/kernel/lib/modules")

root=$work/root
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/seed" "$root/tmp" "$root/etc" "$root/lib/modules"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
cp "$here/init" "$here/udhcpc.sh" "$root/"
chmod 755 "$root/init" "$root/udhcpc.sh"

# Modules with what they depend on, in the order in which they are to be loaded.
"$busybox" depmod -b "$work/kernel" "$version"
needed() {
  # A line of modules.dep: path of a module, then those that it needs, the last of them to be loaded first.
  line=$(grep -E "(^|/)$(echo "$1" | sed 's/[-_]/[-_]/g')\.ko(\.[gx]z|\.zst)?:" "$work/kernel/lib/modules/$version/modules.dep") || return 0
  echo "${line#*:}" | tr ' ' '\n' | sed '/^$/d' | sed '1!G;h;$!d'
  echo "${line%%:*}"
}
: >"$root/modules.list"
for module in $modules; do
  for path in $(needed "$module"); do
    file=$(basename "$path" | sed -E 's/\.(xz|gz|zst)$//')
    grep -qx "$file" "$root/modules.list" && continue
    source=$work/kernel/lib/modules/$version/$path
    [ -f "$source" ] || source=$work/kernel/$path
    case $path in
      *.xz) xz -dc "$source" >"$root/lib/modules/$file" ;;
      *.gz) gzip -dc "$source" >"$root/lib/modules/$file" ;;
      *.zst) zstd -qdc "$source" >"$root/lib/modules/$file" ;;
      *) cp "$source" "$root/lib/modules/$file" ;;
    esac
    echo "$file" >>"$root/modules.list"
  done
done

mkdir -p "$out"
(cd "$root" && find . | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$out/initrd.img.new"
cp "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
# Last, so that both are there as soon as this one is.
mv "$out/initrd.img.new" "$out/initrd.img"

"""Takes a machine through power, boot device and virtual media with OpenStack's sushy, a client that is not ours.

The address, the user and the authority's file come as arguments, the password through the environment.
"""

import json
import os
import sys

import sushy

address, username, authority = sys.argv[1:4]
root = sushy.Sushy(
    address + '/redfish/v1',
    username=username,
    password=os.environ['REDFISH_PASSWORD'],
    verify=authority,
)
system = root.get_system_collection().get_members()[0]
seen = {'uuid': system.uuid, 'manufacturer': system.manufacturer, 'power': [system.power_state.value]}
seen['allowed'] = sorted(value.value for value in system.get_allowed_reset_system_values())
system.set_system_boot_options(
    target=sushy.BOOT_SOURCE_TARGET_PXE,
    enabled=sushy.BOOT_SOURCE_ENABLED_ONCE,
    mode=sushy.BOOT_SOURCE_MODE_UEFI,
)
system.refresh()
seen['boot'] = [system.boot.target.value, system.boot.enabled.value, system.boot.mode.value]
for value in (sushy.RESET_ON, sushy.RESET_FORCE_OFF):
    system.reset_system(value)
    system.refresh()
    seen['power'].append(system.power_state.value)
manager = system.managers[0]
seen['firmware'] = manager.firmware_version
drives = [
    drive
    for drive in system.virtual_media.get_members()
    if sushy.VIRTUAL_MEDIA_CD in drive.media_types
]
drives[0].insert_media('https://boot.example/agent.iso')
drives[0].refresh()
seen['image'] = drives[0].image
drives[0].eject_media()
drives[0].refresh()
seen['inserted'] = drives[0].inserted
print(json.dumps(seen))

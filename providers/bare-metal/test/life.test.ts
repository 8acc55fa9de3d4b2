import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { machineSpec, TestItem } from '../testing/item.js'
import { machineEntry, Scene, targetOf, until } from '../testing/scene.js'

void t.test('a machine is taken into service, made a host, released, wiped and off again', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('r1-u1')
  machine.soiledBy = 'whoever had it before'
  const provider = await scene.start({ machines: [machineEntry(machine, { labels: { rack: 'r1' } })] })
  t.match(await provider.list(), [{ externalId: 'r1-u1', power: 'off', labels: { rack: 'r1' } }])

  const item = new TestItem('machines', 'verify')
  const target = targetOf(item, 'r1-u1')
  await provider.operate(item, 'verify', target)
  t.same(machine.events, [], 'it was proven that it could be switched, and nothing was')
  const hardware = await provider.operate(item, 'inspect', target)
  t.match(hardware, {
    shape: { vcpus: 8, memoryMib: 32_768, diskGib: 100, diskClass: 'ssd', architecture: 'amd64' },
    serial: 'SN-r1-u1',
    details: { nics: [{ mac: machine.mac }], disks: [{ name: 'sda' }, { name: 'sdb' }] },
  })
  t.equal(machine.power, 'on', 'the agent stays for the wipe that follows')
  await provider.operate(item, 'clean', target)
  t.match(machine, { power: 'off', soiledBy: undefined })
  t.equal(machine.events.filter((event) => event === 'agent').length, 1, 'it booted once for both')
  t.match(item.last.attributes, {
    wipe: { outcome: 'done', disks: [{ name: 'sda', wiped: true, by: 'discard' }, { name: 'sdb' }] },
  })
  t.equal(provider.power.wanted.get('r1-u1'), 'off', 'what is available is off')
  t.match(await provider.list(), [
    { hardware: { serial: 'SN-r1-u1' }, labels: { rack: 'r1', 'hardware/firmware': 'uefi' } },
  ])

  const request = new TestItem('machineRequests', 'provision')
  const made = await provider.definition.provision(provider.claim(request).context(), target, machineSpec(request))
  t.match(made, {
    externalId: 'r1-u1',
    power: 'on',
    attributes: { binding: `hub/${request.id}`, image: 'debian', disk: { name: 'sda' } },
  })
  await until('the host to run', () => machine.running === request.key)
  await provider.definition.deprovision?.(provider.claim(request.begin('deprovision')).context(), target)
  t.equal(machine.power, 'off')
  await provider.operate(item, 'clean', target)
  t.match(machine, { power: 'off', soiledBy: undefined, violations: [] })
})

void t.test('a machine that nobody knows tells what it is, and waits', async (t) => {
  const scene = new Scene(t)
  const stranger = scene.machine('stranger', {
    bmc: { address: '10.9.0.7', mac: '52:54:00:aa:00:01', firmware: '2.1' },
  })
  const rules = [
    {
      name: 'rack-9',
      macPrefixes: ['52:54:00'],
      bmcNetworks: ['10.9.0.0/24'],
      bmc: { kind: 'ipmi' },
      credentials: 'rack-9',
      labels: { rack: 'r9' },
    },
  ]
  const overrides = { discovery: { rules } }
  let provider = await scene.start(overrides)
  stranger.setPower('on')
  await until('it to be found', async () => (await provider.list()).length === 1)
  const [found] = await provider.list()
  t.match(found, {
    externalId: stranger.uuid,
    hardware: { serial: 'SN-stranger' },
    labels: { rack: 'r9' },
    providerData: {
      found: { macs: [stranger.mac], bmc: { kind: 'ipmi', address: '10.9.0.7' }, credentials: 'rack-9' },
    },
  })
  t.notMatch(JSON.stringify(found), /sesame/, 'no secret is in it')
  t.equal(stranger.soiledBy, undefined)

  scene.names.set(stranger.uuid, stranger)
  await provider.close()
  rmSync(join(scene.folder, 'state'), { recursive: true })
  provider = await scene.start(overrides)
  t.same(await provider.list(), [], 'with its state folder everything is forgotten')
  const item = new TestItem('machines', 'verify')
  const target = targetOf(item, stranger.uuid, found?.providerData ?? {})
  await provider.operate(item, 'verify', target)
  t.match(
    await provider.list(),
    [{ externalId: stranger.uuid, labels: { rack: 'r9' } }],
    'but for what the hub gives back',
  )
  await provider.operate(item, 'inspect', target)
  await provider.operate(item, 'clean', target)
  t.match(stranger, { power: 'off', violations: [] })
  stranger.setPower('on')
  await until('it to give up', () => stranger.events.at(-1) === 'nothing boots')
  t.pass('once it is in service it boots in its windows alone')
})

void t.test('what no rule fits can be kept to oneself', async (t) => {
  const scene = new Scene(t)
  const [wanted, other] = [scene.machine('wanted'), scene.machine('other')]
  const provider = await scene.start({
    discovery: { unmatched: 'hide', rules: [{ name: 'mine', serials: ['SN-wanted'] }] },
  })
  for (const machine of [wanted, other]) machine.setPower('on')
  await until('both agents', () => [wanted, other].every(({ events }) => events.includes('agent')))
  await until('one to be shown', async () => (await provider.list()).length > 0)
  t.match(await provider.list(), [{ externalId: wanted.uuid }])
  t.equal((await provider.list()).length, 1)
})

void t.test('a machine that is listed by its serial number is known when it boots', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('by-serial')
  const provider = await scene.start({ machines: [machineEntry(machine, { macs: [], serial: 'SN-by-serial' })] })
  const item = new TestItem('machines', 'inspect')
  await provider.operate(item, 'inspect', targetOf(item, 'by-serial'))
  t.match(await provider.list(), [{ externalId: 'by-serial', hardware: { serial: 'SN-by-serial' } }])
  t.equal((await provider.list()).length, 1, 'and is not found a second time')
})

void t.test('a netboot class boots its kernel, again and again, and its seed once', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('n1')
  const overrides = {
    machines: [machineEntry(machine)],
    netboot: {
      talos: {
        kernel: 'vmlinuz',
        initrds: ['initrd.img'],
        args: 'netboot=talos config={{seedUrl}}user-data name={{hostname}}',
      },
    },
  }
  let provider = await scene.start(overrides)
  const request = new TestItem('machineRequests', 'provision')
  const target = targetOf(request, 'n1')
  const spec = machineSpec(request, { netboot: 'talos' })
  const made = await provider.definition.provision(provider.claim(request).context(), target, spec)
  t.match(made.attributes, { netboot: { netboot: 'talos' } })
  await until('it to run', () => machine.running === 'netboot talos')
  await provider.close()
  provider = await scene.start(overrides)
  machine.reset()
  await until('it to run again', () => machine.events.filter((event) => event === 'runs netboot talos').length === 2)
  const script = await (await fetch(`${scene.endpoints[0]}/boot/script?mac=${machine.mac}&uuid=${machine.uuid}`)).text()
  t.match(script, /config=http:\S+\/seed\/user-data name=m-[0-9a-f]{8}/)
  const seed = /config=(\S+)/.exec(script)?.[1] ?? ''
  t.equal((await fetch(seed)).status, 404, 'the seed was for the first process alone')
  provider.site.boot.offerSeed('n1', new Map([['user-data', Buffer.from('secret')]]))
  for (let n = 0; n < 3; n += 1) t.equal(await (await fetch(seed)).text(), 'secret')
  t.equal((await fetch(seed)).status, 403, 'enough is enough')
  await provider.definition.deprovision?.(provider.claim(request.begin('deprovision')).context(), target)
  machine.setPower('on')
  await until('it to find nothing', () => machine.events.at(-1) === 'nothing boots')
})

void t.test('a wrong password is the trouble of one machine', async (t) => {
  const scene = new Scene(t)
  const [good, bad] = [scene.machine('good'), scene.machine('bad')]
  const provider = await scene.start({ machines: [machineEntry(good), machineEntry(bad, { credentials: 'theirs' })] })
  provider.credentials = {
    bmc: { default: { username: 'a', password: 'sesame' }, theirs: { username: 'a', password: 'wrong' } },
  }
  const item = new TestItem('machines', 'verify')
  await provider.operate(item, 'verify', targetOf(item, 'good'))
  await t.rejects(provider.operate(item, 'verify', targetOf(item, 'bad')), {
    code: 'UNAVAILABLE',
    externalCode: 'bmc/wrong-password',
  })
  provider.credentials = {
    bmc: { default: { username: 'a', password: 'sesame' }, theirs: { username: 'a', password: 'sesame' } },
  }
  await provider.operate(item, 'verify', targetOf(item, 'bad'))
})

void t.test('a server in use is left as it is', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('db1')
  machine.power = 'on'
  machine.running = 'a database'
  const provider = await scene.start({ machines: [machineEntry(machine, { inUse: true })] })
  const item = new TestItem('machines', 'verify')
  const target = targetOf(item, 'db1')
  await provider.operate(item, 'verify', target)
  await provider.operate(item, 'inspect', target)
  await t.rejects(provider.operate(item, 'clean', target), { retryable: false, message: /in use/ })
  const request = new TestItem('machineRequests', 'provision')
  await t.rejects(provider.definition.provision(provider.claim(request).context(), target, machineSpec(request)), {
    message: /in use/,
  })
  await t.rejects(provider.definition.power(provider.claim(item).context(), target, 'off'), { message: /in use/ })
  t.match(machine, { power: 'on', running: 'a database', events: [] })
})

void t.test('an order for a disk or an image that is not there is refused', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('small')
  const provider = await scene.start({ machines: [machineEntry(machine)] })
  const request = new TestItem('machineRequests', 'provision')
  const context = provider.claim(request).context()
  t.match(await provider.definition.validate?.(context, machineSpec(request, { image: 'plan9' })), [
    { field: 'spec.provider_data.image' },
  ])
  t.match(await provider.definition.validate?.(context, machineSpec(request, { netboot: 'plan9' })), [
    { field: 'spec.provider_data.netboot' },
  ])
  t.same(await provider.definition.validate?.(context, machineSpec(request)), [])
  const tooLarge = machineSpec(request, { disk: { minGib: 1_000 } })
  await t.rejects(provider.definition.provision(context, targetOf(request, 'small'), tooLarge), {
    code: 'INVALID_SPEC',
    message: /no disk fits \(minGib 1000\); there are sda \(ssd, 100 GiB/,
  })
  t.equal(machine.soiledBy, undefined)
})

import { generateKeyPairSync } from 'node:crypto'
import t, { type Test } from 'tap'
import { answer } from '../src/api/client.js'
import { collected, furnish, scene } from '../testing/scene.js'
import { machineSpec } from '../testing/work.js'

// A new system on a server that stays, and the vendor's rescue system.

t.setTimeout(280_000)

const bootstrap = {
  hostname: 'a',
  userData: '',
  phoneHomeUrl: '',
  phoneHomePathUrl: '',
  phoneHomeToken: '',
  sshPublicKeys: [],
}

async function made(t: Test, data = {}) {
  const stage = await scene(t)
  await furnish(stage)
  const { emulator, provider, work } = stage
  const spec = machineSpec('a', data)
  const { externalId } = await provider.create(work().context(), spec)
  const server = emulator.project.servers.get(Number(externalId))
  if (server === undefined) throw new Error('nothing to work with')
  const { reinstall, rescue, validate } = functionsOf(provider)
  const rebuilds = () => emulator.ledger.calls.filter(({ path, method }) => method === 'POST' && /rebuild$/.test(path))
  return { ...stage, spec, externalId, server, reinstall, rescue, validate, rebuilds }
}

/** The functions of a provider that it may lack. */
function functionsOf(provider: Awaited<ReturnType<typeof scene>>['provider']) {
  const call = <Name extends 'reinstall' | 'rescue' | 'validate'>(name: Name) => {
    const found = provider[name]
    if (found === undefined) throw new Error(`the provider has no ${name}`)
    return found.bind(provider) as NonNullable<(typeof provider)[Name]>
  }
  return { reinstall: call('reinstall'), rescue: call('rescue'), validate: call('validate') }
}

/** A public key as people give it. */
function publicKey(): string {
  const { publicKey } = generateKeyPairSync('ed25519')
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const part = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  return `ssh-ed25519 ${Buffer.concat([part(Buffer.from('ssh-ed25519')), part(raw)]).toString('base64')} somebody`
}

void t.test('a server is rebuilt with another image and user data, and stays', async (t) => {
  const { provider, work, spec, externalId, server, reinstall, rebuilds, emulator } = await made(t, { protected: true })
  const before = { ...server.view.public_net }
  const next = machineSpec(
    'a',
    { image: 'ubuntu-24.04', protected: true },
    { bootstrap: { ...bootstrap, userData: '#cloud-config\nx: 1\n' } },
  )
  const machine = await reinstall(work().context(), { externalId, reinstall: 1 }, next)
  t.match(machine, { externalId, power: 'on', attributes: { image: 'ubuntu-24.04' } })
  t.equal(server.installation, 2)
  t.match(server.userData, /x: 1/)
  t.strictSame(server.view.public_net, before, 'it keeps its addresses')
  t.same(server.view.protection, { delete: true, rebuild: true }, 'and is protected again')
  t.equal(rebuilds().length, 1)
  t.equal(emulator.ledger.created('server').length, 1)
  await provider.delete(work().context(), { externalId, ownershipKey: spec.ownershipKey, name: 'a' })
  t.strictSame(
    emulator.ledger.live().filter(({ labels }) => 'slipway/request' in labels),
    [],
  )
})

void t.test('a rebuild whose answer is lost is found among the actions, and not done again', async (t) => {
  const { emulator, work, spec, externalId, server, reinstall, rebuilds } = await made(t)
  await reinstall(work().context(), { externalId, reinstall: 1 }, spec)
  const item = work()
  emulator.faults.planCall('POST', /\/rebuild$/, 'lost')
  await t.rejects(reinstall(item.context(), { externalId, reinstall: 2 }, spec), { code: 'TIMEOUT' })
  item.attempt = 2
  await reinstall(item.context(), { externalId, reinstall: 2 }, spec)
  t.equal(server.installation, 3, 'one for each wish')
  t.equal(rebuilds().length, 2)
  const dropped = work()
  emulator.faults.planCall('POST', /\/rebuild$/, 'dropped')
  await t.rejects(reinstall(dropped.context(), { externalId, reinstall: 3 }, spec), { code: 'TIMEOUT' })
  dropped.attempt = 2
  await reinstall(dropped.context(), { externalId, reinstall: 3 }, spec)
  t.equal(server.installation, 4, 'one that never came is done')
  t.equal(emulator.faults.pending, 0)
})

void t.test('a rebuild that fails is begun anew by the next try, and by none after it went well', async (t) => {
  const { emulator, work, spec, externalId, server, reinstall, rebuilds } = await made(t)
  emulator.faults.planAction('rebuild_server', { code: 'server_error', message: 'no disk' }, 2)
  const item = work()
  for (const attempt of [1, 2]) {
    item.attempt = attempt
    await t.rejects(reinstall(item.context(), { externalId, reinstall: 1 }, spec), {
      retryable: true,
      message: /no disk/,
    })
  }
  item.attempt = 3
  await reinstall(item.context(), { externalId, reinstall: 1 }, spec)
  t.equal(server.installation, 2)
  item.attempt = 4
  await reinstall(item.context(), { externalId, reinstall: 1 }, spec)
  t.equal(rebuilds().length, 3, 'what went well is not repeated')
})

void t.test('what a rebuild cannot change is refused before anything is done', async (t) => {
  const { emulator, work, spec, externalId, validate, reinstall, rebuilds } = await made(t)
  const context = work().context()
  const refusals = async (data: object, before = spec.data) =>
    (await validate(context, machineSpec('', data), { externalId, data: before })).map(({ field }) => field)
  t.strictSame(await refusals({}), [])
  t.strictSame(await refusals({ image: 'ubuntu-24.04' }), [])
  t.strictSame(await refusals({ image: 'plan9' }), ['spec.provider_data.image'])
  t.strictSame(await refusals({ backups: true, networks: ['net'] }), [
    'spec.provider_data.networks',
    'spec.provider_data.backups',
  ])
  emulator.faults.setCapacity('fsn1', 0)
  t.strictSame(await refusals({}), [], 'a server that is there needs no room')
  await t.rejects(reinstall(context, { externalId, reinstall: 1 }, machineSpec('a', { image: 'plan9' })), {
    code: 'INVALID_SPEC',
    retryable: false,
  })
  t.equal(rebuilds().length, 0)
  emulator.vanish(Number(externalId))
  await t.rejects(reinstall(work().context(), { externalId, reinstall: 1 }, spec), {
    code: 'INTERNAL',
    message: /has vanished/,
  })
})

void t.test('the rescue system is started with keys of the project and keys that are given, and left', async (t) => {
  const { emulator, work, api, externalId, server, rescue, provider, spec } = await made(t)
  const given = publicKey()
  const context = work().context()
  await rescue(context, externalId, { enabled: true, sshKeys: ['key'], sshPublicKeys: [given, given] })
  t.equal(server.inRescue, true)
  t.equal(server.view.status, 'running')
  const { ssh_keys: keys } = await answer(api.GET('/ssh_keys', {}))
  t.strictSame([...server.rescueKeys].sort(), keys.map(({ id }) => id).sort())
  t.equal(keys.length, 2)
  await rescue(context, externalId, { enabled: true, sshKeys: [], sshPublicKeys: [given] })
  t.equal(server.rescueKeys.length, 1, 'asked for anew, with other keys')
  await rescue(context, externalId, { enabled: false })
  t.equal(server.inRescue, false)
  t.strictSame(
    (await answer(api.GET('/ssh_keys', {}))).ssh_keys.map(({ name }) => name),
    ['key'],
    'what was put there for it is gone',
  )
  await rescue(context, externalId, { enabled: true, sshKeys: [], sshPublicKeys: [given] })
  await provider.delete(work().context(), { externalId, ownershipKey: spec.ownershipKey, name: 'a' })
  t.equal((await answer(api.GET('/ssh_keys', {}))).ssh_keys.length, 1, 'also where its server goes')
  t.equal((await collected(provider.list(work().context()))).length, 0)
  t.strictSame(emulator.violations, [])
})

void t.test('no password is ever of use, and what goes wrong on the way is begun anew', async (t) => {
  const { emulator, work, externalId, server, rescue } = await made(t)
  const context = work().context()
  await t.rejects(rescue(context, externalId, { enabled: true, sshKeys: [], sshPublicKeys: [] }), {
    code: 'INVALID_SPEC',
    message: /by SSH key alone/,
  })
  await t.rejects(rescue(context, externalId, { enabled: true, sshKeys: ['nobody'], sshPublicKeys: [] }), {
    code: 'INVALID_SPEC',
    message: /no SSH key of the name or id nobody/,
  })
  const wish = { enabled: true, sshKeys: ['key'], sshPublicKeys: [] } as const
  emulator.faults.planCall('POST', /\/enable_rescue$/, 'lost')
  await t.rejects(rescue(context, externalId, wish), { code: 'TIMEOUT' })
  t.equal(server.inRescue, false)
  await rescue(context, externalId, wish)
  t.equal(server.inRescue, true, 'enabled by the first try, it is enabled anew')
  t.equal(server.view.rescue_enabled, false, 'nothing is left that would lead there again')
})

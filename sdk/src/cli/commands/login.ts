import { readFileSync } from 'node:fs'
import { Role } from '@slipway/proto/hub/v1'
import { createSlipwayClient } from '../../client/index.js'
import {
  contextFilePath,
  readContextFile,
  writeContextFile,
  type ContextFile,
  type SavedContext,
} from '../context-file.js'
import { CliError, exitCodes, usageError } from '../failure.js'
import { formatTable } from '../format.js'
import { shortPrincipal } from '../resources-tenancy.js'
import type { Session } from '../session.js'
import { readStdin } from '../terminal.js'

/** A secret from a file, or from standard input where that is `-`. Never from a flag: flags are in every process list. */
export async function readSecret(session: Session, source: string, what: string): Promise<string> {
  try {
    return (source === '-' ? await readStdin(session.surroundings) : readFileSync(source, 'utf8')).trim()
  } catch (error) {
    throw new CliError(
      exitCodes.usage,
      `cannot read ${what} from ${source}: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

export interface LoginFlags {
  /** The global flag of that name. */
  readonly server?: string
  /** The global flag of that name. */
  readonly context?: string
  /** Absent: somebody signs in. */
  readonly tokenFile?: string
  readonly issuer?: string
  readonly device?: boolean
  readonly browser?: boolean
  readonly name?: string
  readonly workspace?: string
  readonly caFile?: string
}

/** Lets somebody sign in, or proves a token, and keeps the token as the current context. What is not said is as it was the last time. */
export async function login(session: Session, flags: LoginFlags): Promise<void> {
  const { env } = session.surroundings
  const file = readContextFile(env)
  const before = file.contexts[flags.name ?? flags.context ?? env['SLIPWAY_CONTEXT'] ?? file.current]
  const server = flags.server ?? env['SLIPWAY_SERVER'] ?? before?.server
  if (server === undefined) throw usageError('say which hub: slipway login --server URL')
  if (!/^https?:\/\//.test(server))
    throw usageError(`--server must be a URL like https://slipway.example, but is «${server}»`)
  const same = before?.server === server ? before : undefined
  const caFile = flags.caFile ?? env['SLIPWAY_CA_FILE'] ?? same?.caFile
  const workspace = flags.workspace ?? same?.workspace
  const obtained = await obtainToken(session, flags, { server, caFile, issuer: flags.issuer ?? same?.signedIn?.issuer })
  const client = createSlipwayClient({
    baseUrl: server,
    token: obtained.token,
    ...(caFile !== undefined && { caFile }),
  })
  const info = await client.system.getServerInfo({})
  const name = flags.name ?? flags.context ?? (same === undefined ? new URL(server).host : nameOf(file, same))
  const context = {
    server,
    ...obtained,
    ...(workspace !== undefined && { workspace }),
    ...(caFile !== undefined && { caFile }),
  }
  writeContextFile(env, { current: name, contexts: { ...file.contexts, [name]: context } })
  const { signedIn } = obtained
  const who = signedIn === undefined ? info.caller : shortPrincipal(info.principal)
  const until = signedIn?.until === undefined ? '' : `, until ${signedIn.until}`
  session.printValue(
    { context: name, server, caller: info.caller, principal: info.principal, version: info.version, ...signedIn },
    `Logged in to ${server} as ${who}${until} (context ${name})\n`,
  )
}

function nameOf(file: ContextFile, context: SavedContext): string {
  return Object.entries(file.contexts).find(([, each]) => each === context)?.[0] ?? new URL(context.server).host
}

async function obtainToken(
  session: Session,
  flags: LoginFlags,
  where: { readonly server: string; readonly caFile: string | undefined; readonly issuer: string | undefined },
): Promise<Pick<SavedContext, 'token' | 'signedIn'>> {
  const { tokenFile, issuer, device, browser } = flags
  if (tokenFile !== undefined) {
    if (issuer !== undefined || device !== undefined || browser !== undefined)
      throw usageError('--token-file is for programs, and --issuer, --device and --browser are for people: give one')
    return { token: await readSecret(session, tokenFile, 'the token') }
  }
  if (device === true && browser !== undefined) throw usageError('give --device or --browser, and not both')
  const { signIn } = await import('./sign-in.js')
  return signIn(session, {
    server: where.server,
    ...(where.caFile !== undefined && { caFile: where.caFile }),
    ...(where.issuer !== undefined && { issuer: where.issuer }),
    ...(device !== undefined && { device }),
    ...(browser !== undefined && { browser }),
  })
}

export function contextList(session: Session): void {
  const file = readContextFile(session.surroundings.env)
  const rows = Object.entries(file.contexts).map(([name, context]) => ({
    name,
    current: name === file.current,
    server: context.server,
    workspace: context.workspace ?? 'default',
  }))
  const table = formatTable(
    ['CURRENT', 'NAME', 'SERVER', 'WORKSPACE'],
    rows.map((row) => [row.current ? '*' : '', row.name, row.server, row.workspace]),
  )
  session.printValue(rows, session.output === 'name' ? rows.map((row) => `${row.name}\n`).join('') : table)
}

function named(session: Session, name: string) {
  const file = readContextFile(session.surroundings.env)
  const context = file.contexts[name]
  if (context === undefined)
    throw usageError(
      `there is no context «${name}» in ${contextFilePath(session.surroundings.env)}; \`slipway context list\` shows them`,
    )
  return { file, context }
}

export function contextUse(session: Session, name: string): void {
  const { file } = named(session, name)
  writeContextFile(session.surroundings.env, { ...file, current: name })
  session.printValue({ current: name }, `Context ${name} is in use\n`)
}

export function contextShow(session: Session, name: string | undefined): void {
  const chosen = name ?? readContextFile(session.surroundings.env).current
  const { context } = named(session, chosen)
  const shown = {
    name: chosen,
    server: context.server,
    workspace: context.workspace ?? 'default',
    ...(context.caFile !== undefined && { caFile: context.caFile }),
  }
  session.printValue(
    shown,
    Object.entries(shown)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
}

export function contextDelete(session: Session, name: string): void {
  const { file } = named(session, name)
  const contexts = Object.fromEntries(Object.entries(file.contexts).filter(([key]) => key !== name))
  writeContextFile(session.surroundings.env, { current: file.current === name ? '' : file.current, contexts })
  session.printValue({ deleted: name }, `Context ${name} is deleted\n`)
}

export async function whoami(session: Session): Promise<void> {
  const info = await (await session.client()).system.getServerInfo({})
  const shown = {
    caller: info.caller,
    principal: info.principal,
    roles: info.roleBindings
      .map(
        ({ role, name }) =>
          `${Role[role].toLowerCase().replace('_', '-')} of ${name.replace(/\/?roleBindings\/[^/]+$/, '') || 'the hub'}`,
      )
      .join(', '),
    server: session.connection.server,
    workspace: session.workspace,
    version: info.version,
    hubId: info.hubId,
    replica: info.replica,
  }
  session.printValue(
    shown,
    Object.entries(shown)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
}

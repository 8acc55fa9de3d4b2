import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const folder = join(root, 'test/conformance/python')

/** What has to be there for the provider in Python, for people. */
export const pythonNeeds =
  'Python 3 with grpcio and grpcio-tools (python3 -m venv .venv && .venv/bin/pip install -r test/conformance/python/requirements.txt), and openssl; SLIPWAY_PYTHON names the interpreter'

/** A Python with stock gRPC: the one that SLIPWAY_PYTHON names, or python3. Undefined: there is none here. */
export function findPython(): string | undefined {
  const python = process.env['SLIPWAY_PYTHON'] ?? 'python3'
  const hasGrpc = spawnSync(python, ['-c', 'import grpc, grpc_tools.protoc']).status === 0
  const hasOpenssl = spawnSync('openssl', ['version']).status === 0
  return hasGrpc && hasOpenssl ? python : undefined
}

/**
 * Makes Python of proto/ with the stock generator, where that was not done before for the same files.
 *
 * @returns the folder to have on PYTHONPATH. @throws Error with what the generator said.
 */
function generate(python: string): string {
  // The schema of validation, which ours imports, comes with the packages that carry it.
  run(process.execPath, [join(root, 'proto/tools/external.mjs')])
  const own = readdirSync(join(root, 'proto/slipway/provider/v1')).map((file) => `slipway/provider/v1/${file}`)
  const cache = join(root, 'node_modules/.cache/slipway-python')
  const digest = createHash('sha256').update(python)
  for (const file of own) digest.update(readFileSync(join(root, 'proto', file)))
  const made = join(cache, digest.digest('hex').slice(0, 16))
  if (existsSync(made)) return made
  mkdirSync(cache, { recursive: true })
  const draft = mkdtempSync(join(cache, '.draft-'))
  const paths = ['-I', join(root, 'proto'), '-I', join(root, 'proto/external')]
  const outputs = [`--python_out=${draft}`, `--grpc_python_out=${draft}`]
  run(python, ['-m', 'grpc_tools.protoc', ...paths, ...outputs, ...own, 'buf/validate/validate.proto'])
  if (existsSync(made)) rmSync(draft, { recursive: true })
  else renameSync(draft, made)
  return made
}

function run(command: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.slice(0, 2).join(' ')} failed: ${error?.message ?? stderr}`)
}

/** How an instance of the provider in Python is started. @throws Error where the generator fails. */
export function pythonCommand(python: string): readonly string[] {
  return ['env', `PYTHONPATH=${generate(python)}`, 'PYTHONDONTWRITEBYTECODE=1', python, join(folder, 'provider.py')]
}

export const pythonAdapter = join(folder, 'adapter.py')

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import t from 'tap'

// The direction of imports. npm workspaces and project references do not protect it: a provider that imports the hub compiles and runs.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

/** An import, both ends as paths from the root; a package that is not ours as its name. */
interface Edge {
  readonly from: string
  readonly to: string
}

interface Rule {
  readonly name: string
  readonly forbids: (edge: Edge) => boolean
  /** An import that the rule must catch. */
  readonly planted: Edge
}

const inFolder = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`)
const isTest = (path: string) =>
  /\.test\.ts$/.test(path) || inFolder(path, 'test') || /\/(testing|test|examples)\//.test(path)
const providerOf = (path: string) => /^providers\/([^/]+)/.exec(path)?.[1]
const hubLayer = (path: string) => /^hub\/src\/([^/]+)/.exec(path)?.[1]?.replace(/\.ts$/, '')

/** Which layer of the hub may import which. main and hub wire all of them. */
const hubMay: Readonly<Record<string, readonly string[]>> = {
  domain: ['domain'],
  observe: ['observe'],
  config: ['config', 'domain', 'observe'],
  secrets: ['secrets', 'domain'],
  store: ['store', 'domain', 'secrets', 'auth', 'observe'],
  auth: ['auth', 'store', 'domain', 'secrets', 'observe'],
  reconcile: ['reconcile', 'store', 'domain', 'secrets', 'auth', 'observe', 'config'],
  gateway: ['gateway', 'store', 'domain', 'secrets', 'auth', 'observe', 'config'],
  api: ['api', 'store', 'domain', 'secrets', 'auth', 'observe', 'config', 'version'],
}

const rules: readonly Rule[] = [
  {
    name: 'the hub does not import the sdk',
    forbids: ({ from, to }) => inFolder(from, 'hub') && inFolder(to, 'sdk'),
    planted: { from: 'hub/src/gateway/session.ts', to: 'sdk/src/provider/index.ts' },
  },
  {
    name: 'the sdk does not import the hub',
    forbids: ({ from, to }) => inFolder(from, 'sdk') && inFolder(to, 'hub'),
    planted: { from: 'sdk/src/client/client.ts', to: 'hub/src/domain/facts.ts' },
  },
  {
    name: 'a provider does not import the hub',
    forbids: ({ from, to }) => inFolder(from, 'providers') && inFolder(to, 'hub'),
    planted: { from: 'providers/qemu/src/main.ts', to: 'hub/src/domain/facts.ts' },
  },
  {
    name: 'a provider does not speak the protocol past the sdk',
    forbids: ({ from, to }) => inFolder(from, 'providers') && !isTest(from) && inFolder(to, 'proto'),
    planted: { from: 'providers/qemu/src/provider.ts', to: 'proto/gen/slipway/provider/v1/index.ts' },
  },
  {
    name: 'providers do not import one another',
    forbids: ({ from, to }) =>
      inFolder(from, 'providers') && inFolder(to, 'providers') && providerOf(from) !== providerOf(to),
    planted: { from: 'providers/qemu/src/main.ts', to: 'providers/simulated/src/ledger.ts' },
  },
  {
    name: 'nothing imports test',
    forbids: ({ from, to }) => !inFolder(from, 'test') && inFolder(to, 'test'),
    planted: { from: 'hub/src/main.ts', to: 'test/e2e/processes.ts' },
  },
  {
    name: 'testing folders are for tests alone',
    forbids: ({ from, to }) =>
      !isTest(from) && /^(hub\/testing|sdk\/src\/testing|providers\/[^/]+\/testing)\//.test(to),
    planted: { from: 'hub/src/hub.ts', to: 'hub/testing/database.ts' },
  },
  {
    name: 'layers of the hub import downwards only',
    forbids: ({ from, to }) => {
      const [upper, lower] = [hubLayer(from), hubLayer(to)]
      if (upper === undefined || lower === undefined || isTest(from)) return false
      return hubMay[upper] !== undefined && !hubMay[upper].includes(lower)
    },
    planted: { from: 'hub/src/reconcile/reconciler.ts', to: 'hub/src/gateway/registry.ts' },
  },
  {
    name: "the hub's domain does no input or output",
    forbids: ({ from, to }) =>
      inFolder(from, 'hub/src/domain') &&
      !isTest(from) &&
      (/^(node:|pg$|kysely$|@grpc\/|@connectrpc\/|@bufbuild\/|pino$)/.test(to) || inFolder(to, 'proto')),
    planted: { from: 'hub/src/domain/host/decide.ts', to: 'kysely' },
  },
  {
    name: 'SQL is spoken in the store alone',
    forbids: ({ from, to }) =>
      inFolder(from, 'hub/src') &&
      !isTest(from) &&
      !inFolder(from, 'hub/src/store') &&
      (to === 'pg' || to === 'kysely'),
    planted: { from: 'hub/src/api/hosts.ts', to: 'kysely' },
  },
]

const packages: Readonly<Record<string, string>> = {
  '@slipway/proto': 'proto',
  '@slipway/sdk': 'sdk',
  '@slipway/hub': 'hub',
  '@slipway/provider-simulated': 'providers/simulated',
  '@slipway/provider-qemu': 'providers/qemu',
  '@slipway/provider-hetzner-cloud': 'providers/hetzner-cloud',
  '@slipway/provider-bare-metal': 'providers/bare-metal',
  '@slipway/test': 'test',
}

function resolve(from: string, specifier: string): string {
  if (specifier.startsWith('.')) return normalize(join(dirname(from), specifier.replace(/\.js$/, '.ts')))
  const name = Object.keys(packages).find(
    (candidate) => specifier === candidate || specifier.startsWith(`${candidate}/`),
  )
  if (name === undefined) return specifier
  const rest = specifier.slice(name.length)
  const folder =
    rest === '/testing' && packages[name] !== undefined
      ? `${packages[name]}/testing/index.ts`
      : `${packages[name] ?? ''}/src/index.ts`
  return folder
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((file) => join(folder, file))
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts') && !/(^|\/)(node_modules|dist)\//.test(file))
}

function edgesOf(file: string): Edge[] {
  const info = ts.preProcessFile(readFileSync(join(root, file), 'utf8'), true, true)
  return info.importedFiles.map((imported) => ({ from: file, to: resolve(file, imported.fileName) }))
}

void t.test('imports go one way', async (t) => {
  const files = ['hub', 'sdk', 'providers', 'test'].flatMap(sources)
  const edges = files.flatMap(edgesOf)
  t.ok(edges.length > 300, `enough imports were seen to judge (${edges.length} in ${files.length} files)`)
  for (const folder of [
    'hub/src',
    'sdk/src',
    'providers/simulated/src',
    'providers/qemu/src',
    'providers/hetzner-cloud/src',
    'providers/bare-metal/src',
    'test',
  ]) {
    t.ok(
      edges.some((edge) => inFolder(edge.from, folder)),
      `imports of ${folder} were seen`,
    )
  }
  for (const rule of rules) {
    await t.test(rule.name, async (t) => {
      t.ok(rule.forbids(rule.planted), `catches ${rule.planted.from} → ${rule.planted.to}`)
      t.strictSame(
        edges.filter(rule.forbids).map(({ from, to }) => `${from} → ${to}`),
        [],
      )
    })
  }
  await t.test('packages declare what they import', async (t) => {
    const undeclared = new Set<string>()
    for (const { from, to } of edges) {
      const folder = /^(hub|sdk\/create-provider\/template|sdk|test|providers\/[^/]+)\//.exec(from)?.[1]
      if (folder === undefined || to.startsWith('node:') || to.includes('.ts')) continue
      const name = to.startsWith('@') ? to.split('/').slice(0, 2).join('/') : (to.split('/')[0] ?? to)
      const manifest = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as Record<
        string,
        Record<string, string> | undefined
      >
      const house = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<
        string,
        Record<string, string> | undefined
      >
      const declared = {
        ...manifest['dependencies'],
        ...(isTest(from) && { ...manifest['devDependencies'], ...house['devDependencies'] }),
      }
      if (declared[name] === undefined) undeclared.add(`${relative(root, join(root, folder))}: ${name} (${from})`)
    }
    t.strictSame([...undeclared], [])
  })
})

import type { Json, MachineSpec, ObservedMachine, WorkContext } from '@slipway/sdk'
import { silentLog } from './world.js'

/** What a provider's function is given, without a hub: steps are stored in a map, and reports in a list. */
export class FakeWork<Config, Credentials> {
  readonly steps = new Map<string, Json>()
  readonly reports: Partial<ObservedMachine>[] = []
  attempt = 1
  last: WorkContext<Config, Credentials>['last'] = {}
  readonly config: Config
  readonly credentials: Credentials

  constructor(config: Config, credentials: Credentials) {
    this.config = config
    this.credentials = credentials
  }

  context(signal: AbortSignal = new AbortController().signal): WorkContext<Config, Credentials> {
    return {
      config: this.config,
      credentials: this.credentials,
      provider: 'providers/test',
      hubId: 'hub',
      signal,
      log: silentLog,
      budget: () => Promise.resolve(),
      event: () => undefined,
      calledBack: () => undefined,
      wait: ({ message }) => Promise.reject(new Error(`waits: ${message}`)),
      attempt: this.attempt,
      last: this.last,
      step: async (name, work) => {
        const stored = this.steps.get(name)
        if (stored !== undefined)
          return stored as Awaited<ReturnType<typeof work extends { run: infer Run } ? Run : never>>
        const found = typeof work === 'function' || this.attempt === 1 ? undefined : await work.find(signal)
        const result = found ?? (await (typeof work === 'function' ? work(signal) : work.run(signal)))
        this.steps.set(name, result)
        return result
      },
      progress: () => undefined,
      report: async (observed) => {
        this.reports.push(observed)
      },
      poll: async (check, { timeoutMs = 5_000, what = 'a result' } = {}) => {
        const deadlineMs = performance.now() + timeoutMs
        for (;;) {
          const result = await check(signal)
          if (result !== undefined) return result
          if (performance.now() > deadlineMs)
            throw Object.assign(new Error(`${what} did not come`), { code: 'TIMEOUT' })
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      },
    }
  }
}

/** An order as the SDK hands it over. */
export function machineSpec<Data>(
  name: string,
  data: Data,
  overrides: Partial<MachineSpec<Data>> = {},
): MachineSpec<Data> {
  return {
    name,
    ownershipKey: `hub/${name}`,
    typeId: 'sim-small',
    location: 'sim-east',
    shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
    data,
    bootstrap: {
      hostname: name,
      userData: '',
      phoneHomeUrl: '',
      phoneHomePathUrl: '',
      phoneHomeToken: '',
      sshPublicKeys: [],
    },
    host: {
      host: `workspaces/default/hosts/${name}`,
      hostUid: 'uid',
      workspace: 'default',
      machineClass: 'small',
      labels: {},
    },
    ...overrides,
  }
}

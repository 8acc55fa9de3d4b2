import {
  ProviderError,
  type Json,
  type MachineSpec,
  type ObservedMachine,
  type StepEffect,
  type StepRun,
  type WorkContext,
} from '@slipway/sdk'
import { pino } from 'pino'
import { dataSchema, type Config, type Credentials, type Data } from '../src/config.js'

const log = pino({ level: process.env['SLIPWAY_TEST_LOG'] ?? 'silent' })

/** What a function of the provider is given, without a hub: results of steps are kept in a map, and reports in a list. */
export class FakeWork {
  readonly steps = new Map<string, Json>()
  readonly reports: Partial<ObservedMachine>[] = []
  readonly progress: string[] = []
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
      log,
      budget: () => Promise.resolve(),
      event: () => undefined,
      calledBack: () => undefined,
      wait: () => Promise.reject(new ProviderError('INTERNAL', 'nothing here is waited for')),
      attempt: this.attempt,
      last: this.last,
      step: (name, work) => this.#step(name, work, signal),
      progress: (message) => void this.progress.push(message),
      report: async (observed) => {
        this.reports.push(observed)
        this.last = {
          ...this.last,
          ...(observed.externalId !== undefined && { externalId: observed.externalId }),
          ...(observed.attributes !== undefined && { attributes: observed.attributes }),
        }
      },
      poll: async (check, { timeoutMs = 5_000, what = 'a result' } = {}) => {
        const deadlineMs = performance.now() + timeoutMs
        for (;;) {
          const result = await check(signal)
          if (result !== undefined) return result
          if (performance.now() > deadlineMs) throw new ProviderError('TIMEOUT', `${what} did not come`)
          await new Promise((resolve) => setTimeout(resolve, 10))
        }
      },
    }
  }

  /** As the SDK does it: a first attempt does not look, any later one does. */
  async #step<Result extends Json>(
    name: string,
    work: StepRun<Result> | StepEffect<Result>,
    signal: AbortSignal,
  ): Promise<Result> {
    const stored = this.steps.get(name)
    if (stored !== undefined) return stored as Result
    const found = typeof work === 'function' || this.attempt === 1 ? undefined : await work.find(signal)
    const result = found ?? (await (typeof work === 'function' ? work(signal) : work.run(signal)))
    this.steps.set(name, result)
    return result
  }
}

/** An order as the SDK hands it over. */
export function machineSpec(
  name: string,
  data: Partial<Data> = {},
  overrides: Partial<MachineSpec<Data>> = {},
): MachineSpec<Data> {
  return {
    name,
    ownershipKey: `hub/${name}`,
    typeId: 'cx22',
    location: 'fsn1',
    shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
    data: dataSchema.parse({ image: 'debian-12', ...data }),
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

import { create, toBinary, type DescFile, type DescService } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect'
import { healthV1, reflectionV1, reflectionV1Alpha } from '@slipway/proto/grpc'

// The standard services that generic clients expect: health and reflection.

/** Which services are up. Watchers are told when that changes. */
export class HealthStatus {
  readonly #services: ReadonlySet<string>
  #serving = true
  readonly #changed = new Set<() => void>()

  constructor(services: readonly string[]) {
    this.#services = new Set(['', ...services])
  }

  stopServing(): void {
    this.#serving = false
    for (const tell of this.#changed) tell()
  }

  service(): ServiceImpl<typeof healthV1.Health> {
    const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = healthV1.HealthCheckResponse_ServingStatus
    const overall = () => (this.#serving ? SERVING : NOT_SERVING)
    const statusOf = (service: string) => (!this.#services.has(service) ? undefined : overall())
    const changed = this.#changed
    const services = this.#services
    return {
      check(request) {
        const status = statusOf(request.service)
        if (status === undefined) throw new ConnectError(`there is no service ${request.service}`, Code.NotFound)
        return { status }
      },
      list() {
        const status = overall()
        return {
          statuses: Object.fromEntries(
            [...services].map((service) => [service, create(healthV1.HealthCheckResponseSchema, { status })]),
          ),
        }
      },
      async *watch(request, context) {
        let last: number | undefined
        while (!context.signal.aborted) {
          const status = statusOf(request.service) ?? SERVICE_UNKNOWN
          if (status !== last) yield { status }
          last = status
          await new Promise<void>((resolve) => {
            const wake = () => {
              changed.delete(wake)
              resolve()
            }
            changed.add(wake)
            context.signal.addEventListener('abort', wake, { once: true })
          })
        }
      },
    }
  }
}

type V1Request = reflectionV1.ServerReflectionRequest
type V1Response = reflectionV1.ServerReflectionResponse

const unimplemented = 12
const notFound = 5

/** Answers reflection from the descriptors of the services that are served. */
export function reflectionServices(services: readonly DescService[]): {
  readonly v1: ServiceImpl<typeof reflectionV1.ServerReflection>
  readonly v1alpha: ServiceImpl<typeof reflectionV1Alpha.ServerReflection>
} {
  const answer = makeAnswerer(services)
  return {
    v1: {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield answer(request)
      },
    },
    v1alpha: {
      async *serverReflectionInfo(requests) {
        // The two versions are the same on the wire.
        for await (const request of requests) {
          const v1 = answer(request as unknown as V1Request)
          yield create(reflectionV1Alpha.ServerReflectionResponseSchema, {
            validHost: v1.validHost,
            messageResponse:
              v1.messageResponse as unknown as reflectionV1Alpha.ServerReflectionResponse['messageResponse'],
          })
        }
      },
    },
  }
}

function makeAnswerer(services: readonly DescService[]): (request: V1Request) => V1Response {
  const files = new Map<string, DescFile>()
  const collect = (file: DescFile): void => {
    if (files.has(protoName(file))) return
    files.set(protoName(file), file)
    file.dependencies.forEach(collect)
  }
  for (const service of services) collect(service.file)
  const bySymbol = new Map<string, DescFile>()
  const index = (file: DescFile): void => {
    for (const type of [...file.messages, ...file.enums, ...file.extensions, ...file.services])
      indexType(type, file, bySymbol)
  }
  files.forEach(index)
  const withDependencies = (file: DescFile): Uint8Array[] => {
    const all = new Map<string, DescFile>()
    const visit = (next: DescFile): void => {
      if (all.has(next.name)) return
      all.set(next.name, next)
      next.dependencies.forEach(visit)
    }
    visit(file)
    return [...all.values()].map((each) => toBinary(FileDescriptorProtoSchema, each.proto))
  }
  const found = (file: DescFile | undefined, what: string): V1Response['messageResponse'] =>
    file === undefined
      ? error(notFound, `${what} is not known`)
      : {
          case: 'fileDescriptorResponse',
          value: create(reflectionV1.FileDescriptorResponseSchema, { fileDescriptorProto: withDependencies(file) }),
        }
  const respond = (request: V1Request): V1Response['messageResponse'] => {
    const asked = request.messageRequest
    switch (asked.case) {
      case 'listServices':
        return {
          case: 'listServicesResponse',
          value: create(reflectionV1.ListServiceResponseSchema, {
            service: services.map((service) => ({ name: service.typeName })),
          }),
        }
      case 'fileByFilename':
        return found(files.get(asked.value), asked.value)
      case 'fileContainingSymbol':
        return found(bySymbol.get(asked.value), asked.value)
      case 'fileContainingExtension':
        return found(
          [...files.values()].find((file) =>
            file.extensions.some(
              (extension) =>
                extension.extendee.typeName === asked.value.containingType &&
                extension.number === asked.value.extensionNumber,
            ),
          ),
          `extension ${asked.value.extensionNumber} of ${asked.value.containingType}`,
        )
      case 'allExtensionNumbersOfType':
        return {
          case: 'allExtensionNumbersResponse',
          value: create(reflectionV1.ExtensionNumberResponseSchema, {
            baseTypeName: asked.value,
            extensionNumber: [...files.values()].flatMap((file) =>
              file.extensions
                .filter((extension) => extension.extendee.typeName === asked.value)
                .map((extension) => extension.number),
            ),
          }),
        }
      case undefined:
        return error(unimplemented, 'this sort of request is not known')
    }
  }
  return (request) =>
    create(reflectionV1.ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: request,
      messageResponse: respond(request),
    })
}

type Named =
  | DescFile['messages'][number]
  | DescFile['enums'][number]
  | DescFile['extensions'][number]
  | DescFile['services'][number]

function indexType(type: Named, file: DescFile, bySymbol: Map<string, DescFile>): void {
  bySymbol.set(type.typeName, file)
  if (type.kind === 'service') for (const method of type.methods) bySymbol.set(`${type.typeName}.${method.name}`, file)
  if (type.kind !== 'message') return
  for (const field of type.fields) bySymbol.set(`${type.typeName}.${field.name}`, file)
  for (const nested of [...type.nestedMessages, ...type.nestedEnums]) indexType(nested, file, bySymbol)
}

function protoName(file: DescFile): string {
  return file.proto.name
}

function error(errorCode: number, errorMessage: string): V1Response['messageResponse'] {
  return { case: 'errorResponse', value: create(reflectionV1.ErrorResponseSchema, { errorCode, errorMessage }) }
}

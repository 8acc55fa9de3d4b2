import { toBinary, type DescFile, type DescService } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import type { Server } from '@grpc/grpc-js'
import { ReflectionService } from '@grpc/reflection'

/** Serves reflection (v1 and v1alpha) for services whose descriptors are protobuf-es's own. */
export function addReflection(server: Server, services: readonly DescService[]): void {
  const files = new Map<string, DescFile>()
  const visit = (file: DescFile): void => {
    if (files.has(file.name)) return
    files.set(file.name, file)
    file.dependencies.forEach(visit)
  }
  for (const service of services) visit(service.file)
  const fileDescriptorProtos = [...files.values()].map((file) =>
    Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)),
  )
  const definition = { format: 'slipway', type: {}, fileDescriptorProtos }
  new ReflectionService({ slipway: definition } as unknown as ConstructorParameters<typeof ReflectionService>[0], {
    services: services.map((service) => service.typeName),
  }).addToServer(server)
}

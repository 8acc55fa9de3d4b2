import { fromBinary, toBinary, type DescMessage, type DescService, type MessageShape } from '@bufbuild/protobuf'
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js'

/** Makes a grpc-js service definition of a protobuf-es descriptor. Messages must be made with `create()`. */
export function serviceDefinition(service: DescService): ServiceDefinition {
  const definition: Record<string, MethodDefinition<object, object>> = {}
  for (const method of service.methods) {
    definition[method.localName] = {
      path: `/${service.typeName}/${method.name}`,
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      requestSerialize: serializer(method.input),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: serializer(method.output),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    }
  }
  return definition
}

function serializer(schema: DescMessage): (message: object) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, message as MessageShape<typeof schema>)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}

// Lays the schemas that ours import into proto/external, taken from the npm packages that carry them: no network, nothing vendored.
// protovalidate's package has only the compiled descriptor, so its schema is printed from that.
import { createRequire } from 'node:module'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { file_buf_validate_validate } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js'
import { FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as Type } from '@bufbuild/protobuf/wkt'

const require = createRequire(import.meta.url)
const external = new URL('../external/', import.meta.url).pathname

const typeName = (field) => (field.typeName ? field.typeName : Type[field.type].toLowerCase())

function printField(field, indent) {
  const label =
    field.label === Label.REPEATED ? 'repeated ' : field.label === Label.REQUIRED ? 'required ' : 'optional '
  const inOneof = Object.hasOwn(field, 'oneofIndex') && field.oneofIndex !== undefined && isSet(field, 'oneofIndex')
  return `${indent}${inOneof ? '' : label}${typeName(field)} ${field.name} = ${field.number};\n`
}

// Protobuf-es keeps unset proto2 scalars on the prototype: an own property means "was set".
const isSet = (message, key) => Object.prototype.hasOwnProperty.call(message, key)

function printEnum(desc, indent) {
  const values = desc.value.map((value) => `${indent}  ${value.name} = ${value.number};\n`).join('')
  return `${indent}enum ${desc.name} {\n${values}${indent}}\n`
}

function printMessage(desc, indent) {
  const inner = indent + '  '
  let text = `${indent}message ${desc.name} {\n`
  for (const nested of desc.enumType) text += printEnum(nested, inner)
  for (const nested of desc.nestedType) {
    if (nested.options?.mapEntry) throw new Error(`map field in ${desc.name}: the printer does not know maps`)
    text += printMessage(nested, inner)
  }
  desc.oneofDecl.forEach((oneof, index) => {
    const fields = desc.field.filter((field) => isSet(field, 'oneofIndex') && field.oneofIndex === index)
    text += `${inner}oneof ${oneof.name} {\n${fields.map((field) => printField(field, inner + '  ')).join('')}${inner}}\n`
  })
  for (const field of desc.field) if (!isSet(field, 'oneofIndex')) text += printField(field, inner)
  for (const range of desc.extensionRange) {
    const end = range.end >= 536870912 ? 'max' : range.end - 1
    text += `${inner}extensions ${range.start} to ${end};\n`
  }
  for (const range of desc.reservedRange) text += `${inner}reserved ${range.start} to ${range.end - 1};\n`
  for (const name of desc.reservedName) text += `${inner}reserved "${name}";\n`
  return text + `${indent}}\n`
}

function printFile(proto) {
  if (proto.syntax !== 'proto2' && proto.syntax !== '') throw new Error(`the printer knows proto2, not ${proto.syntax}`)
  let text = `syntax = "proto2";\npackage ${proto.package};\n`
  for (const dependency of proto.dependency) text += `import "${dependency}";\n`
  for (const desc of proto.enumType) text += printEnum(desc, '')
  for (const desc of proto.messageType) text += printMessage(desc, '')
  for (const extension of proto.extension) {
    text += `extend ${extension.extendee} {\n${printField(extension, '  ')}}\n`
  }
  return text
}

function write(path, text) {
  const target = join(external, path)
  mkdirSync(dirname(target), { recursive: true })
  writeFileSync(target, text)
}

function copy(from, path) {
  const target = join(external, path)
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(from, target)
}

rmSync(external, { recursive: true, force: true })
write('buf/validate/validate.proto', printFile(file_buf_validate_validate.proto))
const reflection = dirname(require.resolve('@grpc/reflection/package.json'))
for (const version of ['v1', 'v1alpha']) {
  copy(
    join(reflection, `build/proto/grpc/reflection/${version}/reflection.proto`),
    `grpc/reflection/${version}/reflection.proto`,
  )
}
const health = dirname(require.resolve('grpc-health-check/package.json'))
copy(join(health, 'proto/health/v1/health.proto'), 'grpc/health/v1/health.proto')

// The certificate library's injector looks for these at import, and needs no answer: nothing here is injected by type.
const reflect = Reflect as {
  getMetadata?: () => undefined
  getOwnMetadata?: () => undefined
  defineMetadata?: () => void
}
reflect.getMetadata ??= () => undefined
reflect.getOwnMetadata ??= () => undefined
reflect.defineMetadata ??= () => undefined

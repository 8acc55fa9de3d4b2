import { createPrivateKey, generateKeyPairSync, sign, X509Certificate } from 'node:crypto'

/** A fresh key and the request for its certificate. */
export interface SigningRequest {
  readonly keyPem: string
  readonly csrDer: Uint8Array
}

const ecdsaWithSha256 = Buffer.from('06082a8648ce3d040302', 'hex')

/** Makes an ECDSA P-256 key and a PKCS#10 request for it. The subject is empty: the hub chooses every name and uses the public key alone. */
export function makeSigningRequest(): SigningRequest {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const version = der(0x02, Buffer.from([0]))
  const noSubject = der(0x30)
  const noAttributes = der(0xa0)
  const info = der(0x30, version, noSubject, publicKey.export({ type: 'spki', format: 'der' }), noAttributes)
  const signature = sign('sha256', info, privateKey)
  const bits = der(0x03, Buffer.from([0]), signature)
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    csrDer: der(0x30, info, der(0x30, ecdsaWithSha256), bits),
  }
}

/** A certificate in DER as PEM. @throws where it is none. */
export function certificatePem(certificateDer: Uint8Array): string {
  return new X509Certificate(certificateDer).toString()
}

/** Whether a certificate was made for a key. */
export function certificateFitsKey(pem: string, keyPem: string): boolean {
  return new X509Certificate(pem).checkPrivateKey(createPrivateKey(keyPem))
}

function der(tag: number, ...contents: Uint8Array[]): Buffer {
  const content = Buffer.concat(contents)
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content])
  const length = Buffer.from(content.length.toString(16).padStart(content.length > 0xff ? 4 : 2, '0'), 'hex')
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, content])
}

import { ProviderError, type FailureCode } from '@slipway/sdk'

const codesByErrno: Readonly<Record<string, FailureCode>> = {
  ENOSPC: 'CAPACITY',
  EDQUOT: 'QUOTA',
  ENOMEM: 'CAPACITY',
  EAGAIN: 'CAPACITY',
  EMFILE: 'UNAVAILABLE',
  ENFILE: 'UNAVAILABLE',
  EACCES: 'UNAVAILABLE',
  EPERM: 'UNAVAILABLE',
  EROFS: 'UNAVAILABLE',
  EIO: 'UNAVAILABLE',
}

/** What QEMU and qemu-img say where the host is full or busy, and what it means. */
const codesByText: readonly (readonly [RegExp, FailureCode])[] = [
  [/No space left on device/i, 'CAPACITY'],
  [/Cannot allocate memory|cannot set up guest memory/i, 'CAPACITY'],
  [/Failed to get "(write|consistent read)" lock/i, 'CONFLICT'],
  [/Could not set up host forwarding rule/i, 'CONFLICT'],
  [/Permission denied/i, 'UNAVAILABLE'],
]

/** The error's system code, for example `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' ? code : undefined
}

/** Makes a failure of something that the file system or the kernel refused. A ProviderError, or an abort, passes as it is. */
export function fromSystemError(error: unknown, what: string): Error {
  if (error instanceof ProviderError) return error
  const errno = errnoOf(error)
  const code = errno === undefined ? undefined : codesByErrno[errno]
  if (errno === undefined || !(error instanceof Error))
    return error instanceof Error ? error : ProviderError.from(error)
  return new ProviderError(code ?? 'INTERNAL', `${what}: ${error.message}`, { externalCode: errno, cause: error })
}

/** Makes a failure of what a program printed before it ended. */
export function fromProgramOutput(program: string, exit: string, output: string): ProviderError {
  const code = codesByText.find(([pattern]) => pattern.test(output))?.[1] ?? 'INTERNAL'
  const words = output.trim() === '' ? 'and said nothing' : `and said: ${output.trim().slice(-2_000)}`
  return new ProviderError(code, `${program} ended with ${exit} ${words}`)
}

/** @returns whether the error says that a file or folder is not there. */
export function isMissing(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT'
}

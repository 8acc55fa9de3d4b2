/** The version of this command line, put in when it is bundled. */
declare const SLIPWAY_VERSION: string | undefined

export const version: string = typeof SLIPWAY_VERSION === 'string' ? SLIPWAY_VERSION : '0.0.0-unbundled'

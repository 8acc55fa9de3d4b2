/** What user-data may ask for. */
export interface BootstrapValues {
  readonly hostname: string
  /** With the token in its path, for software that can only POST to a URL. */
  readonly phoneHomeUrl: string
  readonly phoneHomeToken: string
}

/** Puts values in the places that user-data marks: `{{hostname}}`, `{{phone_home_url}}` and `{{phone_home_token}}`. All else stays as it is. */
export function renderUserData(userData: string, values: BootstrapValues): string {
  const known: Readonly<Record<string, string>> = {
    hostname: values.hostname,
    phone_home_url: values.phoneHomeUrl,
    phone_home_token: values.phoneHomeToken,
  }
  return userData.replace(
    /\{\{(hostname|phone_home_url|phone_home_token)\}\}/g,
    (mark, name: string) => known[name] ?? mark,
  )
}

// The few signs the page needs, drawn in the colour of the text around them.

import { html } from "./lib/htm/preact.js";

const shapes = {
  pause: html`<path d="M5 3v10M11 3v10" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" />`,
  play: html`<path d="M4.5 2.800v10.400L13 8z" fill="currentColor" />`,
  auto: html`<circle cx="8" cy="8" r="5.6" fill="none" stroke="currentColor" stroke-width="1.6" /><path d="M8 2.400a5.6 5.6 0 0 1 0 11.200z" fill="currentColor" />`,
  light: html`<circle cx="8" cy="8" r="3" fill="currentColor" /><path
      d="M8 1v2M8 13v2M1 8h2M13 8h2M3.1 3.100l1.4 1.400M11.5 11.500l1.4 1.400M3.1 12.900l1.4-1.400M11.5 4.500l1.4-1.4"
      stroke="currentColor"
      stroke-width="1.6"
      stroke-linecap="round"
    />`,
  dark: html`<path d="M13.2 9.800A5.8 5.8 0 0 1 6.2 2.800a5.8 5.8 0 1 0 7 7z" fill="currentColor" />`,
  injected: html`<path d="M9 1.5 3.5 9H8l-1 5.500L12.5 7H8z" fill="currentColor" />`,
  healed: html`<path d="m3 8.5 3.3 3.300L13 4.8" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round" />`,
  cleared: html`<circle cx="8" cy="8" r="4" fill="none" stroke="currentColor" stroke-width="1.8" />`,
  acted: html`<path d="M8 2.5 13 8l-5 5.500L3 8z" fill="currentColor" />`,
  failed: html`<path d="m4 4 8 8M12 4l-8 8" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" />`,
  other: html`<circle cx="8" cy="8" r="2.6" fill="currentColor" />`,
  arrow: html`<path d="M3 8h9M8.5 4.2 12.3 8l-3.8 3.8" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round" />`,
};

/** A sign; decoration only, so whoever uses it says in words what it means. */
export const icon = (name) => html`<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">${shapes[name]}</svg>`;

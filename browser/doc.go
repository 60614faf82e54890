// Package browser tests the web interface in a real browser: headless Chromium,
// driven over its DevTools pipe, clicks through every page of a live relay.
// There is nothing in it but tests. Screenshots go to out/screens.
package browser

// node browser.mjs JOB.json: opens pages in Chromium and prints as JSON what is measured of them.
// A job: {modules, chromium, pages: {name: {file, schemes}}, tools: name of the page whose chart tools are used, pictures:
// whether screenshots are taken, folder: where they and downloads go}
import fs from "fs";
import path from "path";
import {createRequire} from "module";

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const require = createRequire(path.join(job.modules, "package.json"));
const {chromium} = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// What is wider than the page, which words of tables are broken, and what scrolls to the side.
function measure() {
  const width = document.documentElement.clientWidth, wide = [], broken = [], scrolls = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".skip, .unseen, dialog:not([open])")) continue;
    const box = element.getBoundingClientRect(), name = `${element.tagName}.${element.getAttribute("class") || ""} ${element.textContent.slice(0, 30)}`;
    if (box.width && (box.right > width + 1 || box.left < -1)) wide.push(name);
    if (element.scrollWidth > element.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowX)) scrolls.push(name);
  }
  for (const cell of document.querySelectorAll("td, th, .num, .name, svg text")) {
    if (!cell.getClientRects().length || cell.closest(".long, .prose")) continue;
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) for (const word of node.data.matchAll(/\S+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].filter(box => box.width).map(box => Math.round(box.top))).size > 1) broken.push(word[0]);
    }
  }
  for (const svg of document.querySelectorAll("svg.chart[viewBox]")) for (const text of svg.querySelectorAll("text")) {
    const box = text.getBBox(), view = svg.viewBox.baseVal;
    if (box.x < -1 || box.x + box.width > view.width + 1) broken.push(`cut: ${text.textContent}`);
  }
  return {width, scroll_width: document.documentElement.scrollWidth, wide, broken, scrolls};
}

const violations = async page => {
  await page.evaluate(axe);
  return page.evaluate(async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.map(one => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`));
};

async function opened(browser, file, width, scheme, more = {}) {
  const context = await browser.newContext({viewport: {width, height: 900}, colorScheme: scheme, isMobile: width < 500, acceptDownloads: true, ...more});
  const page = await context.newPage();
  page.setDefaultTimeout(240000);
  page.errors = [];
  page.on("console", message => message.type() === "error" && page.errors.push(message.text()));
  page.on("pageerror", error => page.errors.push(error.message));
  page.on("request", request => /^(file|data|blob):/.test(request.url()) || page.errors.push(`fetches ${request.url()}`));
  await page.goto(`file://${file}`);
  return page;
}

const path_of = name => path.join(job.folder, name);
const openAll = page => page.evaluate(() => document.querySelectorAll("details").forEach(one => { one.open = true; }));

// One load for a phone and one for a desk: what is measured at each width, closed and with all details open, and what
// axe finds in the page's schemes (light on the phone, dark on the desk).
async function measured(browser, file, schemes) {
  const result = {views: [], violations: [], errors: []};
  for (const [scheme, widths] of [["light", [390]], ["dark", [768, 1440]]]) {
    const page = await opened(browser, file, widths[0], scheme, {bypassCSP: true});
    for (const state of ["closed", "open"]) {
      if (state === "open") await openAll(page);
      for (const width of widths) {
        await page.setViewportSize({width, height: 900});
        result.views.push({asked: width, state, ...await page.evaluate(measure)});
        if (job.pictures) await page.screenshot({path: path.join(job.folder, `${path.parse(file).name}_${width}_${scheme}_${state}.png`), fullPage: true});
      }
    }
    if (schemes.includes(scheme)) result.violations.push(...await violations(page));
    result.errors.push(...page.errors);
    await page.context().close();
  }
  return result;
}

const place = async page => page.locator("#large-chart").evaluate(svg => [svg.getAttribute("aria-valuemin"), svg.getAttribute("aria-valuemax")].map(Number));

async function tools(browser, file) {
  const page = await opened(browser, file, 1440, "light"), found = {}, canvas = page.locator("#large-chart");
  const small = page.locator("#loss .enlarge").first();
  await small.focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Home");
  found.live = await page.locator("#said").textContent();
  found.beside = await page.locator("#loss figure output").nth(1).textContent();
  await page.locator("#loss .key button").nth(1).click();
  found.hidden = await page.locator("#loss .plot .line.hue-1").first().isHidden();
  await small.press("Enter");
  found.open = await page.locator("#large").evaluate(dialog => dialog.open);
  found.focused = await canvas.evaluate(svg => document.activeElement === svg);
  found.all = await place(page);
  await page.keyboard.press("End");
  await page.keyboard.press("+");
  found.zoomed = await place(page);
  found.said = await canvas.getAttribute("aria-valuetext");
  await page.keyboard.press("0");
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + 100);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 100, {steps: 4});
  await page.mouse.up();
  found.dragged = await place(page);
  await page.locator("#large [name=points]").check();
  found.points = await canvas.locator("circle").count();
  const before = await canvas.locator(".line").first().getAttribute("d");
  await page.locator("#large [name=smooth]").fill("60");
  found.smoothed = before !== await canvas.locator(".line:not(.faint)").first().getAttribute("d");
  for (const kind of ["csv", "svg"]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator(`[data-tool=${kind}]`).click()]);
    found[kind] = path.join(job.folder, download.suggestedFilename());
    await download.saveAs(found[kind]);
  }
  await canvas.dblclick({position: {x: 300, y: 60}});
  found.reset = await place(page);
  const over = page.locator("#large [name=over]");
  found.over = {};
  for (const kind of ["epoch", "time", "step"]) {
    await over.focus();
    await over.selectOption(kind);
    await canvas.focus();
    await page.keyboard.press("End");
    const ticks = await canvas.locator("text[y]").evaluateAll((texts, y) => texts.filter(text => Number(text.getAttribute("y")) > y).map(text => text.textContent), box.height - 30);
    const line = await canvas.locator(".line:not(.faint)").first().getAttribute("d");
    found.over[kind] = {ticks, line, said: await canvas.getAttribute("aria-valuetext")};
    if (job.pictures) await page.screenshot({path: path_of(`over_${kind}.png`)});
  }
  const lines = await canvas.locator(".line:not(.faint)").count();
  await page.locator("#large-lines button").first().click();
  found.toggled = [lines, await canvas.locator(".line:not(.faint)").count()];
  await page.keyboard.press("Escape");
  found.closed = !await page.locator("#large").evaluate(dialog => dialog.open);
  found.back = await small.evaluate(button => document.activeElement === button);
  found.errors = page.errors;
  await page.context().close();
  const checked = await opened(browser, file, 390, "dark", {bypassCSP: true});
  await checked.locator("#loss .enlarge").first().click();
  found.large_violations = await violations(checked);
  found.large_measured = await checked.evaluate(measure);
  if (job.pictures) await checked.screenshot({path: path_of("large_390_dark.png")});
  await checked.context().close();
  return found;
}

async function pages(browser, file) {
  const page = await opened(browser, file, 1440, "light");
  const pdf = await page.pdf({format: "A4", margin: {top: "10mm", bottom: "10mm", left: "10mm", right: "10mm"}, printBackground: true});
  await page.context().close();
  return (pdf.toString("latin1").match(/\/Type\s*\/Page[^s]/g) || []).length;
}

const browser = await chromium.launch({executablePath: job.chromium, args: ["--no-sandbox"]});
const result = {measured: {}, printed: {}};
for (const [name, {file, schemes}] of Object.entries(job.pages)) {
  result.measured[name] = await measured(browser, file, schemes);
  result.printed[name] = await pages(browser, file);
}
if (job.tools) result.tools = await tools(browser, job.pages[job.tools].file);
await browser.close();
console.log(JSON.stringify(result));

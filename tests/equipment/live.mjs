// node live.mjs JOB.json: opens the live page and prints as JSON what it shows before and after a finding comes.
// A job: {modules, chromium, url, go: a file that is written when the page is ready for the finding}
import fs from "fs";
import path from "path";
import {createRequire} from "module";

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const {chromium} = createRequire(path.join(job.modules, "package.json"))("playwright-core");
const browser = await chromium.launch({executablePath: job.chromium, args: ["--no-sandbox"]});
const page = await browser.newPage({viewport: {width: 390, height: 800}});
const errors = [], loads = [];
page.on("pageerror", error => errors.push(String(error)));
page.on("console", message => message.type() === "error" && errors.push(message.text()));
page.on("load", () => loads.push(page.url()));
await page.goto(job.url);
await page.waitForSelector("#curves figure");
const before = await page.textContent("#findings");
fs.writeFileSync(job.go, "");
await page.waitForSelector(".finding");
const shown = await page.evaluate(() => ({
  findings: document.getElementById("findings").textContent, verdicts: document.getElementById("verdicts").textContent,
  curves: document.querySelectorAll("#curves polyline").length, baselines: document.querySelectorAll("#curves line").length,
  wide: document.documentElement.scrollWidth > document.documentElement.clientWidth, images: document.images.length,
}));
console.log(JSON.stringify({before, ...shown, errors, loads: loads.length}));
await browser.close();

// CSV as a spreadsheet opens it: what the API answers, with names beside the values where there are several rooms.

// Without it Excel takes UTF-8 for the encoding of old.
const BYTE_ORDER_MARK = "\ufeff";
// Where numbers have a decimal comma, spreadsheets take a semicolon between columns, and a number with a point for a date.
const comma = new Intl.NumberFormat().format(1.5).includes(",");
// A spreadsheet takes what begins like this for a formula, and names are anybody's. A number is none.
const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
const NUMBER = /^-?\d+(\.\d+)?(e[-+]?\d+)?$/;

const quoted = (text) => `"${(FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text).replace(/"/g, '""')}"`;
const written = (value) => (comma && NUMBER.test(value) ? value.replace(".", ",") : value);

// The API quotes nothing: its columns are instants and numbers.
const cells = (line) => line.split(",").map(written);

// What the API answers about readings, each room after the other: for programs, and it goes in again as it is.
export function whole(files) {
  const header = "building_id,room_id,timestamp,temperature\r\n".length;
  return new Blob([BYTE_ORDER_MARK, ...files.map((file, index) => (index ? file.slice(header) : file))], { type: "text/csv" });
}

// `texts` are the API's answers about the rooms.
export function sheet(texts, rooms) {
  const [head] = texts[0].split("\r\n");
  const several = rooms.length > 1;
  const rows = texts.flatMap((text, index) => {
    const names = several ? [rooms[index].building, rooms[index].room ?? ""].map(quoted) : [];
    return text.trimEnd().split("\r\n").slice(1).map((line) => [...names, ...cells(line)]);
  });
  const all = [[...(several ? ["building_id", "room_id"] : []), ...head.split(",")], ...rows];
  return BYTE_ORDER_MARK + all.map((row) => `${row.join(comma ? ";" : ",")}\r\n`).join("");
}

"""The examples of parallel_examples(7) of GNU parallel 20221122, by its sections, made small enough to run.

Programs that are not everywhere (convert, lame, wget, ...) and the manual's inventions (do_something, my_program) are stand-ins
that print or write what they were given; see ``STANDINS``. Counts are smaller. The rest of the command lines is the manual's.
"""

from typing import Final

import msgspec


class Case(msgspec.Struct, frozen=True):
    """One example: a script for bash in a folder of its own, where PARALLEL stands for the program."""

    section: str
    script: str
    setup: str = ""
    """What is there before, for bash."""
    own: str = ""
    """The script for p2pq, where it is not the same with ``p2pq map``."""
    note: str = ""


STANDINS: Final = {
    "convert": 'last=; for one; do last=$one; done; echo "convert $*" > "$last"',
    "lame": 'echo "lame $*" > "$3"',
    **dict.fromkeys(("wget", "curl", "prips", "traceroute", "host", "my_program", "cmd", "my_command"), 'echo "$0 $*" | sed "s:.*/::"'),
    "ping": 'case $3 in *[13579]) exit 1;; esac',
    "do_something": 'echo "did $*"',
    "do_step1": 'echo "step 1 $*"',
    "do_step2": 'echo "step 2 $* $(cat)"',
    "process_output": "sort",
    "myprog": 'echo "myprog $*"',
    "fastq-reader": "cat",
}  # fmt: skip

_HTML: Final = "mkdir sub; for f in a.html b.html sub/c.html; do echo FOO BAR > $f; done"
_JPG: Final = "mkdir foo; touch a.jpg b.jpg foo/bar.jpg"
_FUNCTION: Final = 'doit() { echo "Doing it for $1"; echo "Done with $1"; }\nexport -f doit\n'
_TWO: Final = 'doubleit() { echo "Doing it for $1 $2"; echo "Done with $1 $2"; }\nexport -f doubleit\n'
_BIG: Final = "seq 20000 > bigfile"

CASES: Final = (
    Case("Working as xargs -n1", "find . -name '*.html' | PARALLEL gzip --best -n", _HTML),
    Case("Working as xargs -n1", "find . -type f -print0 | PARALLEL -q0 perl -i -pe 's/FOO BAR/FUBAR/g'", _HTML),
    Case(
        "Simple network scanner",
        "prips 130.229.16.0/20 | PARALLEL --timeout 2 -j0 'ping -c 1 {} >/dev/null && echo {}' 2>/dev/null",
    ),
    Case("Reading arguments from command line", "PARALLEL gzip --best -n ::: *.html", _HTML),
    Case("Reading arguments from command line", "PARALLEL lame {} -o {.}.mp3 ::: *.wav", "touch a.wav b.wav"),
    Case(
        "Inserting multiple arguments",
        r"ls | grep -E '\.log$' | PARALLEL mv {} destdir",
        "mkdir destdir; touch a.log b.log",
    ),
    Case(
        "Inserting multiple arguments",
        r"ls | grep -E '\.log$' | PARALLEL -m mv {} destdir",
        "mkdir destdir; touch a.log b.log",
    ),
    Case(
        "Inserting multiple arguments",
        r"printf '%s\0' *.log | PARALLEL -0 -m mv {} destdir",
        "mkdir destdir; touch a.log b.log",
    ),
    Case("Context replace", "seq -w 0 19 | PARALLEL rm pict{}.jpg", "touch pict{00..19}.jpg"),
    Case("Context replace", "seq -w 0 19 | perl -pe 's/(.*)/pict$1.jpg/' | PARALLEL -m rm", "touch pict{00..19}.jpg"),
    Case("Context replace", "seq -w 0 19 | PARALLEL -X rm pict{}.jpg", "touch pict{00..19}.jpg"),
    Case("Compute intensive jobs and substitution", "ls *.jpg | PARALLEL convert -geometry 120 {} thumb_{}", _JPG),
    Case(
        "Compute intensive jobs and substitution",
        "find . -name '*.jpg' | PARALLEL convert -geometry 120 {} {}_thumb.jpg",
        _JPG,
    ),
    Case(
        "Compute intensive jobs and substitution",
        "find . -name '*.jpg' | PARALLEL convert -geometry 120 {} {.}_thumb.jpg",
        _JPG,
    ),
    Case(
        "Substitution and redirection",
        'PARALLEL zcat {} ">"{.} ::: *.gz',
        "for i in 1 2; do echo $i | gzip -n > $i.gz; done",
    ),
    Case(
        "Substitution and redirection",
        'PARALLEL "zcat {} >{.}" ::: *.gz',
        "for i in 1 2; do echo $i | gzip -n > $i.gz; done",
    ),
    Case("Composed commands", """ls | PARALLEL 'echo -n {}" "; ls {}|wc -l'""", "mkdir a b; touch a/1 a/2 b/3"),
    Case(
        "Composed commands", """ls | PARALLEL '(echo -n {}" "; ls {}|wc -l) >{}.dir'""", "mkdir a b; touch a/1 a/2 b/3"
    ),
    Case(
        "Composed commands",
        'find . | PARALLEL \'a={}; name=${a##*/};\' \'upper=$(echo "$name" | tr "[:lower:]" "[:upper:]");\' \'echo "$name - $upper"\'',
        _HTML,
    ),
    Case("Composed commands", """ls | PARALLEL 'mv {} "$(echo {} | tr "[:upper:]" "[:lower:]")"'""", "touch ABC Def"),
    Case(
        "Composed commands",
        'cat urlfile | PARALLEL "ping -c 1 {} 2>/dev/null || grep -n {} urlfile"',
        "seq 11 14 > urlfile",
    ),
    Case(
        "Composed commands",
        "cp -rs $PWD/source mirror_dir; find mirror_dir -type l | PARALLEL -m rm {} '&&' touch {}",
        "mkdir source; echo 1 > source/a; echo 2 > source/b",
    ),
    Case(
        "Composed commands",
        "cat file_list | PARALLEL 'if [ ! -e {} ] ; then echo {}; fi'",
        "printf 'a\\nb\\n' > file_list; touch a",
    ),
    Case(
        "Composed command with perl replacement string",
        "PARALLEL 'mkdir -p {=s/(.).*/$1/=}; mv {} {=s/(.).*/$1/=}' ::: *",
        "touch apple ape bear",
    ),
    Case(
        "Composed command with multiple input sources",
        'PARALLEL [ -f {1}:{2} ] "||" echo {1}:{2} does not exist ::: {00..02} ::: {00..55..5}',
        "touch 00:00 01:05",
    ),
    Case("Calling Bash functions", f"{_FUNCTION}PARALLEL doit ::: 1 2 3"),
    Case("Calling Bash functions", f"{_TWO}PARALLEL doubleit ::: 1 2 3 ::: a b"),
    Case(
        "Function tester",
        'tester() { if (eval "$@") >&/dev/null; then echo "OK $@"; else echo "FAIL $@"; fi; }\nexport -f tester\nPARALLEL tester my_program ::: arg1 arg2',
    ),
    Case(
        "Function tester",
        'tester() { if (eval "$@") >&/dev/null; then echo "OK $@"; else echo "FAIL $@"; fi; }\nexport -f tester\nPARALLEL tester exit ::: 1 0 2 0',
    ),
    Case(
        "Continously show the latest line of output",
        "PARALLEL '{} | tee >(cat >&3)' ::: 'echo 1' 'echo 2' 3> /dev/null",
    ),
    Case(
        "Log rotate",
        "seq 9 -1 1 | PARALLEL -j1 mv log.{} log.'{= $_++ =}'; mv log log.1",
        "for i in log log.{1..9}; do echo $i > $i; done",
    ),
    Case(
        "Removing file extension when processing files",
        "PARALLEL 'mkdir {.}; cd {.}; tar xf ../{}' ::: *.tar",
        "for i in a b; do echo $i > $i.txt; tar --mtime=@0 -cf $i.tar $i.txt; done; rm *.txt",
    ),
    Case(
        "Removing file extension when processing files",
        'PARALLEL "zcat {} | bzip2 >{.}.bz2 && rm {}" ::: *.gz',
        "for i in 1 2; do echo $i | gzip -n > $i.gz; done",
    ),
    Case(
        "Removing file extension when processing files",
        "find sounddir -type f -name '*.wav' | PARALLEL lame {} -o {.}.mp3",
        "mkdir sounddir; touch sounddir/{a,b}.wav",
    ),
    Case(
        "Removing file extension when processing files",
        "find sounddir -type f -name '*.wav' | PARALLEL lame {} -o mydir/{/.}.mp3",
        "mkdir mydir sounddir; touch sounddir/{a,b}.wav",
    ),
    Case(
        "Removing strings from the argument",
        "PARALLEL --plus 'mkdir {..}; tar -C {..} -xf {}' ::: *.tar.gz",
        "touch a b; tar --mtime=@0 -czf foo.tar.gz a; tar --mtime=@0 -czf bar.tar.gz b; rm a b",
    ),
    Case("Removing strings from the argument", "PARALLEL --plus echo {%_demo} ::: mycode_demo keep_demo_here"),
    Case("Removing strings from the argument", "PARALLEL --plus echo {#demo_} ::: demo_mycode keep_demo_here"),
    Case("Removing strings from the argument", "PARALLEL --plus echo {/demo_/} ::: demo_mycode remove_demo_here"),
    Case(
        "Download 24 images for each of the past 30 days",
        'getit() { echo wget "https://www.example.com/$1_$2.jpg"; }\nexport -f getit\nPARALLEL getit ::: $(seq 3) ::: $(seq -w 12)',
    ),
    Case(
        "Download world map from NASA",
        'PARALLEL -j0 -q wget "base?TILEROW={1}&TILECOL={2}" -O {1}_{2}.jpg ::: {0..2} ::: {0..3}',
    ),
    Case("Download world map from NASA", "PARALLEL eval convert +append {}_{0..3}.jpg line{}.jpg ::: {0..2}"),
    Case("Download Apollo-11 images from NASA using jq", "printf 'a\\nb\\n' | PARALLEL wget -O - | PARALLEL echo"),
    Case(
        "Download video playlist in parallel",
        "seq 3 | PARALLEL --tagstring {#} --lb -j10 my_program --playlist-start {#} --playlist-end {#}",
    ),
    Case(
        "Prepend last modified date",
        'PARALLEL mv {} \'{= $a=pQ($_); $b=$_; $_=qx{date -r "$a" +%FT%T}; chomp; $_="$_ $b" =}\' ::: *',
        "touch -d 2001-02-03T04:05:06 a b",
    ),
    Case(
        "Save output in ISO8601 dirs", "seq 2 | PARALLEL -N0 -j1 --delay 1 --results '{= $_=`date -I`; chomp=}/' echo 1"
    ),
    Case(
        'Digital clock with "blinking" :',
        'PARALLEL -k echo {1}\'{=3 $_=$_%2?":":" "=}\'{2}{3} ::: {0..2} ::: {0..2} ::: {0..2}',
    ),
    Case(
        "Aggregating content of files",
        "PARALLEL --header : echo x{X}y{Y}z{Z} \\> x{X}y{Y}z{Z} ::: X {1..2} ::: Y {01..03} ::: Z {1..2}",
    ),
    Case(
        "Aggregating content of files",
        "PARALLEL eval 'cat {=s/y01/y*/=} > {=s/y01//=}' ::: *y01*",
        "for i in 1 2; do for j in 1 2; do echo $i$j > x${i}y0${j}z1; done; done",
    ),
    Case(
        "Process files from a tar file while unpacking",
        "tar xvf foo.tgz | perl -ne 'print $l;$l=$_;END{print $l}' | PARALLEL echo",
        "touch a b; tar --mtime=@0 -czf foo.tgz a b; rm a b",
    ),
    Case(
        "Rewriting a for-loop and a while-read-loop",
        "cat list | PARALLEL do_something | process_output",
        "seq 5 > list",
    ),
    Case(
        "Rewriting a for-loop and a while-read-loop",
        "cat hosts.txt | PARALLEL -P 100 host | grep 1.2.3.4",
        "printf '1.2.3.4\\n5.6.7.8\\n' > hosts.txt",
    ),
    Case(
        "Rewriting a for-loop and a while-read-loop",
        'cat list | PARALLEL "do_step1 {} scale {.}.jpg ; do_step2 <{} {.}" | process_output',
        "for i in a.x b.y; do echo $i > $i; done; ls > list; sed -i /list/d list",
    ),
    Case("Rewriting a for-loop and a while-read-loop", f"{_FUNCTION}cat list | PARALLEL doit", "seq 5 > list"),
    Case(
        "Rewriting nested for-loops",
        "PARALLEL do_something {1} {2} :::: xlist ylist | process_output",
        "seq 3 > xlist; seq 7 9 > ylist",
    ),
    Case("Rewriting nested for-loops", "PARALLEL echo {1} {2} ::: red green blue ::: S M L XL XXL | sort"),
    Case(
        "Finding the lowest difference between files",
        "PARALLEL --tag 'diff {1} {2} | wc -l' ::: * ::: * | sort -nk3",
        "seq 3 > a; seq 5 > b; seq 9 > c",
    ),
    Case(
        "for-loops with column names",
        "PARALLEL --header : echo {colour} {size} ::: colour red green blue ::: size S M L XL XXL",
    ),
    Case(
        "for-loops with column names",
        "cat addressbook.tsv | PARALLEL --colsep '\\t' --header : echo {Name} {E-mail address}",
        "printf 'Name\\tE-mail address\\nA\\ta@b\\nC\\tc@d\\n' > addressbook.tsv",
    ),
    Case("All combinations in a list", "PARALLEL --plus echo {choose_k} ::: A B C D ::: A B C D"),
    Case("All combinations in a list", "PARALLEL --plus echo 2{2choose_k} 1{1choose_k} ::: A B C D ::: A B C D"),
    Case("All combinations in a list", "PARALLEL --plus echo {choose_k} ::: A B C D ::: A B C D ::: A B C D"),
    Case("All combinations in a list", "PARALLEL --plus echo {uniq} ::: A B C ::: A B C ::: A B C"),
    Case("All combinations in a list", "PARALLEL --plus echo {1uniq}+{2uniq}+{3uniq} ::: A B C ::: A B C ::: A B C"),
    Case(
        "From a to b and b to c",
        "PARALLEL echo {1} - {2} ::::+ <(head -n -1 in.txt) <(tail -n +2 in.txt)",
        "printf '%s\\n' aardvark babble cab dab each > in.txt",
    ),
    Case(
        "From a to b and b to c",
        'a=(aardvark babble cab dab each)\nPARALLEL echo {1} - {2} ::: "${a[@]::${#a[@]}-1}" :::+ "${a[@]:1}"',
    ),
    Case(
        "Count the differences between all files in a dir",
        """PARALLEL --results $PWD/out "diff -U 0 {1} {2} | tail -n +3 |grep -v '^@'|wc -l" ::: * ::: *""",
        "seq 3 > a; seq 5 > b",
    ),
    Case("Speeding up fast jobs", "seq -w 0 99 | PARALLEL touch pict{}.jpg"),
    Case("Speeding up fast jobs", "seq -w 0 99 | PARALLEL -X touch pict{}.jpg"),
    Case(
        "Speeding up fast jobs",
        "seq 100 | perl -pe 'print \"echo This is fast job number \"' | PARALLEL --pipe --block 10M sh",
    ),
    Case(
        "Using shell variables",
        'ARR=("My brother\'s 12\\" records are worth <\\$\\$\\$>"\'!\' Foo Bar)\nPARALLEL echo ::: "${ARR[@]}"',
    ),
    Case(
        "Using shell variables",
        'VAR="My brother\'s 12\\" records are worth <\\$\\$\\$>"\nPARALLEL -q echo "$VAR" ::: \'!\'',
    ),
    Case(
        "Using shell variables",
        "VAR=\"My brother's 12\\\" records are worth <\\$\\$\\$>\"\nexport VAR\nPARALLEL echo '\"$VAR\"' ::: '!'",
    ),
    Case("Using shell variables", 'VAR="My 12\\" records are worth <\\$\\$\\$>"\nPARALLEL echo "\'$VAR\'" ::: \'!\''),
    Case(
        "Using shell variables",
        'VAR="My brother\'s 12\\" records are worth <\\$\\$\\$>"\nexport VAR\nmyfunc() { echo "$VAR" "$1"; }\nexport -f myfunc\nPARALLEL myfunc ::: \'!\'',
    ),
    Case(
        "Group output lines",
        "PARALLEL wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
    ),
    Case(
        "Group output lines",
        "PARALLEL --line-buffer wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
    ),
    Case(
        "Group output lines",
        "PARALLEL --latest-line wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
        note="this version of GNU parallel does not know it either",
    ),
    Case(
        "Group output lines",
        "PARALLEL -u wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
    ),
    Case(
        "Tag output lines",
        "PARALLEL --tag wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
    ),
    Case(
        "Tag output lines",
        "PARALLEL --tag --line-buffer wget --limit-rate=100k https://ftpmirror.gnu.org/parallel-20{}0822.tar.bz2 ::: {12..16}",
    ),
    Case("Colorize output", "seq 10 | PARALLEL -j1 -k --tagstring '\\033[30;3{=$_=++$::color%8=}m' seq {}"),
    Case(
        "Colorize output",
        'PARALLEL -j1 -k --rpl \'{color} $_="\\033[30;3".(++$::color%8)."m"\' --tagstring {color} seq {} ::: {1..10}',
    ),
    Case(
        "Keep order of output same as order of input",
        "cat textfile | PARALLEL -k echo {} append_string",
        "seq 20 > textfile",
    ),
    Case(
        "Keep order of output same as order of input",
        "PARALLEL traceroute ::: qubes-os.org debian.org freenetproject.org",
    ),
    Case(
        "Keep order of output same as order of input",
        "PARALLEL -k traceroute ::: qubes-os.org debian.org freenetproject.org",
    ),
    Case(
        "Keep order of output same as order of input",
        "seq 0 9 | PARALLEL -k curl -r {}0000000-{}9999999 https://example.com/the/big/file > file",
    ),
    Case(
        "Parallel grep",
        "find . -type f | sort | PARALLEL -k -j150% -n 1000 -m grep -H -n STRING {}",
        "echo STRING > a; echo STRING > b",
    ),
    Case(
        "Grepping n lines for m regular expressions",
        "PARALLEL --pipe-part -a regexps.txt --block 1M grep -F -f - -n bigfile | sort -un | perl -pe 's/^\\d+://'",
        f"{_BIG}; seq 7 > regexps.txt",
    ),
    Case(
        "Grepping n lines for m regular expressions",
        "cat regexps.txt | PARALLEL --pipe -L1000 --round-robin --compress grep -f - -n bigfile | sort -un | perl -pe 's/^\\d+://'",
        f"{_BIG}; seq 7 > regexps.txt",
    ),
    Case(
        "Grepping n lines for m regular expressions",
        "PARALLEL --pipe-part --block 100M -a bigfile -k --compress grep -f regexps.txt",
        f"{_BIG}; seq 7 > regexps.txt",
    ),
    Case(
        "Use multiple inputs in one command",
        "ls *.es.* | perl -pe 'print; s/\\.es//' | PARALLEL -N2 cp {1} {2}",
        "echo 1 > foo.es.ext; echo 2 > bar.es.ext",
    ),
    Case("Use multiple inputs in one command", "PARALLEL -k echo ::: 0 1 ::: 0 1 ::: 0 1 ::: 0 1 ::: 0 1 ::: 0 1"),
    Case("Use multiple inputs in one command", "PARALLEL --link -a <(seq 6) -a <(seq 6 -1 1) echo"),
    Case("Use multiple inputs in one command", "PARALLEL --link echo :::: <(seq 6) <(seq 6 -1 1)"),
    Case(
        "Use multiple inputs in one command",
        "PARALLEL --link -a <(find . -type f | sort) -a <(seq $(find . -type f|wc -l)) convert {1} {2}.png",
        _JPG,
    ),
    Case("Use multiple inputs in one command", "find . -type f | sort | PARALLEL convert {} {#}.png", _JPG),
    Case(
        "Use a table as input",
        "PARALLEL -a table_file.tsv --colsep '\\t' cmd -o {2} -i {1}",
        "printf 'foo\\tbar\\nbaz \\t quux\\n' > table_file.tsv",
    ),
    Case(
        "Use a table as input",
        "PARALLEL -a table_file.tsv --trim n --colsep '\\t' cmd -o {2} -i {1}",
        "printf 'foo\\tbar\\nbaz \\t quux\\n' > table_file.tsv",
    ),
    Case(
        "Output to CSV-file for R",
        "PARALLEL --results my.csv seq ::: 10 20 30 > /dev/null; cut -d, -f1 my.csv | head -1",
    ),
    Case("Use XML as input", "echo ' url=\"http://a/b.mp3\"' | PARALLEL -u wget '{= s/ url=\"//; s/\"//; =}'"),
    Case("Run the same command 10 times", "seq 10 | PARALLEL -n0 my_command my_args"),
    Case(
        "Working as cat | sh",
        "PARALLEL -j 100 < jobs_to_run",
        "for i in 2 4; do echo ping -c 1 10.0.0.$i; echo wget http://example.com/status.cgi?ip=10.0.0.$i; done > jobs_to_run",
    ),
    Case(
        "Call program with FASTA sequence",
        "cat file.fasta | PARALLEL --pipe -N1 --recstart '>' --rrs 'read a; echo Name: \"$a\"; myprog $(tr -d \"\\n\")'",
        "printf '>Sequence name1\\nACGT\\nTTT\\n>Sequence name2\\nGG\\n' > file.fasta",
    ),
    Case(
        "Call program with interleaved FASTQ records",
        "PARALLEL --pipe-part -a big.fq --block -1 --regexp --recend '\\n' --recstart '@.*(/1| 1:.*)\\n[A-Za-z\\n\\.~]' fastq-reader",
        "for i in 1 2 3; do printf '@E:%s/1\\nACGT\\n+\\n####\\n@E:%s/2\\nACGT\\n+\\n####\\n' $i $i; done > big.fq",
    ),
    Case(
        "Processing a big file using more CPUs",
        "cat bigfile | PARALLEL --pipe --recend '' -k gzip -9 > bigfile.gz; zcat bigfile.gz | cmp - bigfile; rm bigfile.gz",
        _BIG,
    ),
    Case(
        "Processing a big file using more CPUs",
        "cat bigfile | PARALLEL --pipe --files sort | PARALLEL -Xj1 sort -m {} ';' rm {} > bigfile.sort",
        _BIG,
    ),
    Case(
        "Processing a big file using more CPUs",
        "PARALLEL --pipe-part --block 100m -a bigfile --files sort | PARALLEL -Xj1 sort -m {} ';' rm {} > bigfile.sort",
        _BIG,
    ),
    Case(
        "Grouping input lines",
        "cat my.csv | perl -ape '$F[1] ne $l and print \"SEP\"; $l = $F[1]' | PARALLEL --recend SEP --rrs --pipe -N1 wc",
        'for i in a a b b b c; do echo "1 $i 5"; done > my.csv',
    ),
    Case(
        "Running more than 250 jobs workaround",
        "seq 100 | PARALLEL --pipe -N 50 --round-robin -j50 PARALLEL -j50 my_program",
    ),
)

ELSEWHERE: Final = {
    "need a remote login": (
        "Using remote computers", "Transferring of files", "Advanced file transfer", "Distributing work to local and remote computers",
        "Running the same command on remote computers", "Running 'sudo' on remote computers", "Using remote computers behind NAT wall",
        "Use sshpass with ssh", "Use outrun instead of ssh", "Slurm cluster", "Parallelizing rsync",
    ),
    "need a program of their own or a terminal": (
        "Breadth first parallel web crawler/mirrorer", "Output to database", "Working as mutex and counting semaphore", "Mutex for a script",
        "Start editor with filenames from stdin", "Running sudo", "Run ping in parallel", "Locate the missing package",
    ),
    "do not end by themselves": ("GNU Parallel as queue system/batch manager", "GNU Parallel as dir processor"),
}  # fmt: skip
"""Sections that are not compared, and why."""

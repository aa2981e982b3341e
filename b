(;FF[4]CA[UTF-8]GM[1]SZ[5]KM[3.0]
;B[dd];B[cb];W[bd];B[cc];B[bc];W[ca])

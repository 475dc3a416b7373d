declare kept cursor with hold for select generate_series(1, 1000);
fetch kept;
-- next
fetch kept;
